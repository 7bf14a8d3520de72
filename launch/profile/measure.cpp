#include "launch/profile/measure.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "launch/engine/provenance.h"
#include "launch/terminal/progress.h"

namespace accrete::launch {
namespace {

// Of every window at every length, window after window: request i is window i / P at length i % P.
std::vector<worker::Request> profile_requests(const ProfileText& text, const SlotProfile& profile) {
  std::vector<worker::Request> requests;
  for (int64_t window = 0; window < profile.windows; ++window) {
    const auto begin = text.tokens.begin() + window * text.longest;
    for (int64_t length : profile.lengths) {
      worker::Request request;
      request.prompt.assign(begin, begin + length);
      request.sampling.temperature = 0.0f;
      request.max_tokens = 1;  // sampled and never cached
      request.ignore_eos = true;
      request.decision_key = static_cast<uint64_t>(window) + 1;
      requests.push_back(std::move(request));
    }
  }
  return requests;
}

void add_counts(const worker::RequestOutput& output, SlotProfile& profile) {
  const size_t point = output.id % profile.lengths.size();
  const worker::RequestUsage& usage = output.usage;
  const int64_t cached = std::llround(usage.kv_slots * usage.compression_ratio);
  if (static_cast<int64_t>(usage.head_slots.size()) != profile.heads() || cached != profile.lengths[point]) {
    throw std::runtime_error(fmt::format("{} tokens were to be counted, {} were in the caches", profile.lengths[point], cached));
  }
  for (size_t head = 0; head < usage.head_slots.size(); ++head) {
    const size_t cell = point * usage.head_slots.size() + head;
    profile.mean_slots[cell] += usage.head_slots[head];
    profile.most_slots[cell] = std::max(profile.most_slots[cell], usage.head_slots[head]);
  }
}

}  // namespace

SlotProfile measure_profile(OfflineEngine& engine, const ProfileText& text) {
  SlotProfile profile;
  profile.provenance = provenance_of(engine.model(), engine.status().shape, 1);
  profile.model_hash = engine.model().hash();
  profile.text = text.name;
  profile.windows = static_cast<int64_t>(text.tokens.size()) / text.longest;
  profile.layers = engine.model().layers();
  profile.kv_heads = engine.model().kv_heads();
  profile.lengths = profile_lengths(text.longest, text.points);
  profile.mean_slots.resize(profile.lengths.size() * static_cast<size_t>(profile.heads()));
  profile.most_slots.resize(profile.mean_slots.size());
  Progress progress("tokens", profile.windows * std::accumulate(profile.lengths.begin(), profile.lengths.end(), int64_t{0}));
  int64_t done = 0;
  engine.run(profile_requests(text, profile), [&](const TimedOutput& timed) {
    const worker::RequestOutput& output = timed.output;
    if (output.finish == worker::FinishReason::none) return;
    if (output.finish == worker::FinishReason::error) throw std::runtime_error(output.error);
    add_counts(output, profile);
    progress.update(done += profile.lengths[output.id % profile.lengths.size()]);
  });
  for (double& slots : profile.mean_slots) slots /= static_cast<double>(profile.windows);
  return profile;
}

}  // namespace accrete::launch
