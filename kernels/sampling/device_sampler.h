// The device's memory of open requests' sampling: parameters, edits and token statistics, by row of the tables. The host fills a row
// when a request starts; from then on sample_cuda keeps it up to date.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "kernels/device/device_memory.h"
#include "kernels/sampling/sample_device.h"
#include "kernels/sampling/sampling.h"

namespace accrete {

struct SamplerTableSize {
  int64_t rows = 0;        // R, requests open at once, and the most rows of one sample_cuda
  int64_t vocabulary = 0;  // V
  int64_t edits = 1024;    // K, bias entries and forbidden ids a request may have
};

// What a row starts with. Ids outside [0, V) are ignored, as by sample_cpu.
struct SamplerStart {
  const SamplingParams* params = nullptr;
  std::span<const int32_t> forbidden;    // ids that may not be sampled at positions below forbidden_until
  int64_t forbidden_until = INT64_MAX;   // e.g. prompt tokens + min_tokens
  std::span<const int32_t> prompt;       // tokens, needed when penalties are on
  std::span<const int32_t> generated;    // tokens so far, in any order: of a request that was stopped and goes on
};

// Owned by the thread that enqueues steps.
class DeviceSamplerTables {
 public:
  explicit DeviceSamplerTables(const SamplerTableSize& size);

  // Whether the request fits: edits at most K, logprobs at most kMostTopLogprobs.
  bool fits(const SamplerStart& start) const;
  // Enqueues the row's new contents; `start` is not needed afterwards. It must fit.
  void start(int64_t row, const SamplerStart& start, Stream& stream);
  const SamplerTables& tables() const { return tables_; }

 private:
  // Page-locked copy of one row on its way to the device.
  struct Staging {
    PinnedMemory memory;
    DeviceEvent sent;
  };
  static constexpr size_t kStagings = 8;  // rows on their way before start() waits for the first

  SamplerTableSize size_;
  SamplerTables tables_;
  DeviceMemory rows_, edits_, prompt_bits_, counts_, greedy_parts_;
  std::array<Staging, kStagings> stagings_;
  size_t next_ = 0;
};

}  // namespace accrete
