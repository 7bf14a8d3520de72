#include "kernels/sampling/device_sampler.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/check.h"

namespace accrete {
namespace {

constexpr float kGreedyBelow = 1e-5f;  // as sample_cpu
constexpr size_t kAlign = 16;

size_t aligned(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// One row's parts, in host memory.
struct RowImage {
  SamplerRow* row;
  LogitEdit* edits;    // [K]
  uint32_t* prompt;    // [ceil(V / 32)]
  uint16_t* counts;    // [V]
};

size_t prompt_words(const SamplerTableSize& size) { return static_cast<size_t>(size.vocabulary + 31) / 32; }

size_t image_bytes(const SamplerTableSize& size) {
  return aligned(sizeof(SamplerRow)) + aligned(size.edits * sizeof(LogitEdit)) + aligned(prompt_words(size) * sizeof(uint32_t)) +
         aligned(size.vocabulary * sizeof(uint16_t));
}

RowImage image_in(std::byte* memory, const SamplerTableSize& size) {
  RowImage image;
  image.row = reinterpret_cast<SamplerRow*>(memory);
  memory += aligned(sizeof(SamplerRow));
  image.edits = reinterpret_cast<LogitEdit*>(memory);
  memory += aligned(size.edits * sizeof(LogitEdit));
  image.prompt = reinterpret_cast<uint32_t*>(memory);
  memory += aligned(prompt_words(size) * sizeof(uint32_t));
  image.counts = reinterpret_cast<uint16_t*>(memory);
  return image;
}

int32_t clamped(int64_t position) {
  return static_cast<int32_t>(std::clamp<int64_t>(position, 0, std::numeric_limits<int32_t>::max()));
}

// Forbidden ids, then bias, ordered by token and otherwise left in the order in which sample_cpu applies them.
void write_edits(const SamplerStart& start, int64_t vocabulary, const RowImage& image) {
  const auto possible = [&](int32_t token) { return token >= 0 && token < vocabulary; };
  LogitEdit* end = image.edits;
  for (int32_t token : start.forbidden) {
    if (possible(token)) *end++ = {token, clamped(start.forbidden_until), -std::numeric_limits<float>::infinity()};
  }
  for (const auto& [token, bias] : start.params->logit_bias) {
    if (possible(token)) *end++ = {token, std::numeric_limits<int32_t>::max(), bias};
  }
  std::stable_sort(image.edits, end, [](const LogitEdit& a, const LogitEdit& b) { return a.token < b.token; });
  image.row->edits = static_cast<int32_t>(end - image.edits);
  for (const LogitEdit* edit = image.edits; edit != end; ++edit) {
    image.row->edits_until = std::max(image.row->edits_until, edit->until);
  }
}

void write_statistics(const SamplerStart& start, const SamplerTableSize& size, const RowImage& image) {
  std::fill_n(image.prompt, prompt_words(size), 0);
  std::fill_n(image.counts, size.vocabulary, uint16_t{0});
  for (int32_t token : start.prompt) {
    if (token >= 0 && token < size.vocabulary) image.prompt[token / 32] |= 1u << (token % 32);
  }
  for (int32_t token : start.generated) {
    if (token < 0 || token >= size.vocabulary) continue;
    if (image.counts[token] < std::numeric_limits<uint16_t>::max()) ++image.counts[token];
  }
}

SamplerRow row_of(const SamplingParams& params, int64_t vocabulary) {
  SamplerRow row;
  row.seed = params.seed;
  row.inverse_temperature = params.temperature < kGreedyBelow ? 0.0f : 1.0f / params.temperature;
  row.top_p = params.top_p;
  row.min_p = std::min(params.min_p, 1.0f);
  row.top_k = params.top_k > 0 && params.top_k < vocabulary ? params.top_k : 0;
  row.presence_penalty = params.presence_penalty;
  row.frequency_penalty = params.frequency_penalty;
  row.repetition_penalty = params.repetition_penalty;
  row.logprobs = params.logprobs;
  row.penalised = params.penalised();
  return row;
}

}  // namespace

DeviceSamplerTables::DeviceSamplerTables(const SamplerTableSize& size)
    : size_(size),
      rows_(size.rows * sizeof(SamplerRow)),
      edits_(std::max<int64_t>(size.rows * size.edits, 1) * sizeof(LogitEdit)),
      prompt_bits_(size.rows * prompt_words(size) * sizeof(uint32_t)),
      counts_(size.rows * size.vocabulary * sizeof(uint16_t)),
      greedy_parts_(size.rows * kMostGreedyParts * sizeof(uint64_t)) {
  CHECK(size.rows > 0 && size.edits >= 0, size.rows, size.edits);
  CHECK(size.vocabulary > 0 && size.vocabulary <= kMostVocabulary, size.vocabulary, kMostVocabulary);
  for (Staging& staging : stagings_) staging.memory = PinnedMemory(image_bytes(size));
  tables_ = {rows_.as<SamplerRow>(), edits_.as<LogitEdit>(), prompt_bits_.as<uint32_t>(), counts_.as<uint16_t>(),
             greedy_parts_.as<uint64_t>(), size.rows, size.edits, size.vocabulary};
}

bool DeviceSamplerTables::fits(const SamplerStart& start) const {
  const size_t edits = start.forbidden.size() + start.params->logit_bias.size();
  return edits <= static_cast<size_t>(size_.edits) && start.params->logprobs <= kMostTopLogprobs;
}

void DeviceSamplerTables::start(int64_t row, const SamplerStart& start, Stream& stream) {
  CHECK(row >= 0 && row < size_.rows && start.params, row, size_.rows);
  CHECK(fits(start), start.forbidden.size(), start.params->logit_bias.size(), size_.edits, start.params->logprobs);
  Staging& staging = stagings_[next_++ % kStagings];
  staging.sent.wait();  // until its last row is on the device
  const RowImage image = image_in(staging.memory.as<std::byte>(), size_);
  *image.row = row_of(*start.params, size_.vocabulary);
  write_edits(start, size_.vocabulary, image);
  copy_to_device(rows_.as<SamplerRow>() + row, image.row, sizeof(SamplerRow), stream);
  if (image.row->edits > 0) {
    copy_to_device(edits_.as<LogitEdit>() + row * size_.edits, image.edits, image.row->edits * sizeof(LogitEdit), stream);
  }
  if (image.row->penalised) {
    write_statistics(start, size_, image);
    const size_t words = prompt_words(size_);
    copy_to_device(prompt_bits_.as<uint32_t>() + row * words, image.prompt, words * sizeof(uint32_t), stream);
    copy_to_device(counts_.as<uint16_t>() + row * size_.vocabulary, image.counts, size_.vocabulary * sizeof(uint16_t), stream);
  }
  staging.sent.record(stream);
}

}  // namespace accrete
