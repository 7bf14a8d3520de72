// What a text makes of a model's caches: the slots to expect of every head as a function of length. Measured by `accrete profile`, kept as
// versioned JSON (docs/profile.md), shown by `accrete inspect --profile`; for placing heads and admitting requests by what they will take.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/bench/record.h"

namespace accrete::launch {

inline constexpr int kProfileVersion = 1;

struct SlotProfile {
  Provenance provenance;
  std::string model_hash;          // ModelCard::hash
  std::string text;                // where the text came from
  int64_t windows = 0;             // stretches of the text that were averaged
  int64_t layers = 0;              // L
  int64_t kv_heads = 0;            // Hkv
  std::vector<int64_t> lengths;    // [P] tokens, ascending
  std::vector<double> mean_slots;  // [P, L, Hkv] mean over windows
  std::vector<int32_t> most_slots; // [P, L, Hkv] of any window

  int64_t heads() const { return layers * kv_heads; }
  int64_t longest() const { return lengths.empty() ? 0 : lengths.back(); }
};

// Slots that head `head` (layer * Hkv + KV head) is expected to hold after `length` tokens: linear between the measured lengths, from
// nothing at length 0, and beyond the longest at its ratio.
double expected_slots(const SlotProfile& profile, int64_t head, int64_t length);

// Tokens per slot, over all heads, after `length` tokens.
double expected_ratio(const SlotProfile& profile, int64_t length);

// Lengths worth measuring up to `longest` tokens: powers of two from 16 on and `points` equal steps, ascending.
std::vector<int64_t> profile_lengths(int64_t longest, int64_t points);

nlohmann::json to_json(const SlotProfile& profile);
// Throws std::runtime_error naming the field that is missing or wrong.
SlotProfile profile_from(const nlohmann::json& json);
// Throws std::runtime_error naming the file as well.
SlotProfile read_profile(const std::string& path);

// "mean of 3 windows"
std::string windows_text(const SlotProfile& profile);

// For a terminal: tokens, slots and ratio by length, then after `length` tokens a row for each layer (0: the longest).
std::string to_text(const SlotProfile& profile, int64_t length);

}  // namespace accrete::launch
