#include "worker/model/llama_scratch.h"

#include <algorithm>
#include <vector>

namespace accrete::worker {
namespace {

constexpr int64_t kAlignment = 256;  // bytes: of a GPU's widest access, more than the CPU's

// Buffers laid end to end, then placed.
class Layout {
 public:
  explicit Layout(DType activations) : activations_(activations) {}

  void add(ScratchBuffer& buffer, int64_t elements) { add(buffer, elements, activations_); }
  void add(ScratchBuffer& buffer, int64_t elements, DType dtype) {
    buffer.elements = elements;
    buffer.dtype = dtype;
    places_.push_back({&buffer, end_});
    end_ += (elements * static_cast<int64_t>(size_of(dtype)) + kAlignment - 1) / kAlignment * kAlignment;
    most_ = std::max(most_, end_);
  }
  int64_t end() const { return end_; }
  void back_to(int64_t end) { end_ = end; }
  void to_the_end() { end_ = most_; }
  int64_t bytes() const { return most_; }
  void place(std::byte* memory) const {
    for (const auto& [buffer, offset] : places_) buffer->data = memory + offset;
  }

 private:
  DType activations_;
  std::vector<std::pair<ScratchBuffer*, int64_t>> places_;
  int64_t end_ = 0, most_ = 0;
};

}  // namespace

int64_t padded_vocab(int64_t vocab, int tensor_size) {
  constexpr int64_t kMultiple = 16;
  const int64_t most = parallel::deal_in_units(vocab, tensor_size, 0).size();  // the first shard has the most
  return (most + kMultiple - 1) / kMultiple * kMultiple;
}

LlamaScratch::LlamaScratch(const ModelConfig& config, const parallel::ShardSpec& shard, const LlamaScratchSize& size, StageDevice& device) {
  const int64_t tokens = size.tokens, kv_heads = shard.kv_heads.size();
  const int64_t query_width = shard.query_heads.size() * config.head_size, kv_width = kv_heads * config.head_size;
  Layout layout(device.activation_dtype());
  for (ScratchBuffer* buffer : {&hidden, &delta}) layout.add(*buffer, tokens * config.hidden);
  layout.add(normed, (size.fp8 ? size.logit_rows : tokens) * config.hidden);
  for (ScratchBuffer* buffer : {&cos, &sin}) layout.add(*buffer, tokens * config.head_size / 2, DType::f32);
  if (size.fp8) {
    layout.add(x8, tokens * std::max({config.hidden, query_width, shard.mlp.size()}), DType::fp8);
    layout.add(x_scale, tokens, DType::f32);
  }
  const int64_t shared = layout.end();
  layout.add(qkv, tokens * (query_width + 2 * kv_width));
  for (ScratchBuffer* buffer : {&q, &attended}) layout.add(*buffer, tokens * query_width);
  for (ScratchBuffer* buffer : {&own_k, &own_v}) layout.add(*buffer, tokens * kv_width);
  layout.add(own_slot, tokens * kv_heads, DType::i32);
  layout.add(appends, kv_heads * 2 * ((tokens + 31) / 32), DType::i32);
  layout.add(weight, tokens * kv_heads, DType::f32);
  layout.back_to(shared);
  layout.add(gate_up, tokens * 2 * shard.mlp.size());
  if (!size.fp8) layout.add(activated, tokens * shard.mlp.size());
  layout.to_the_end();
  if (shard.last_stage) {
    const int64_t padded = padded_vocab(config.vocab, size.tensor_size);
    layout.add(last_rows, size.logit_rows * config.hidden);
    layout.add(shard_logits, size.logit_rows * padded, DType::f32);
    if (size.gathers) {
      layout.add(all_logits, size.tensor_size * size.logit_rows * padded, DType::f32);
      layout.add(logits, size.logit_rows * config.vocab, DType::f32);
    }
  }
  bytes = layout.bytes();
  memory_ = device.allocate(bytes);
  layout.place(memory_.get());
}

}  // namespace accrete::worker
