// Measures a SlotProfile: runs stretches of a text through an engine's own caches, once for each length, and counts slots at the end.
#pragma once

#include "launch/engine/offline_engine.h"
#include "launch/profile/slot_profile.h"

namespace accrete::launch {

struct ProfileText {
  std::string name;             // for the record
  std::vector<int32_t> tokens;
  int64_t longest = 0;          // tokens of a window, at most tokens.size(); one more must fit the model
  int64_t points = 0;           // equal steps beside powers of two
};

// Non-overlapping windows of `longest` tokens, each read at every length of profile_lengths. A window's decisions are the same at each length
// and for each shape of the replica. Progress on stderr. Throws std::runtime_error when a request fails.
SlotProfile measure_profile(OfflineEngine& engine, const ProfileText& text);

}  // namespace accrete::launch
