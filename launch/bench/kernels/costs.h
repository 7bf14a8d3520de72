// What one launch of each kernel must at least move and compute, bf16 unless said otherwise. Bytes that a kernel reads again through the
// caches are not counted twice, so no implementation can beat these by being clever.
#pragma once

#include <cstdint>

#include "launch/bench/kernels/model_shape.h"
#include "launch/bench/kernels/row.h"

namespace accrete::launch {

inline constexpr double kBf16 = 2.0, kFp8 = 1.0, kWord = 4.0;  // bytes of an element

// x and delta read, x and y written, [T, E]; weight [E].
inline Cost rms_norm_cost(double tokens, double width) { return {.bytes = kBf16 * (4 * tokens * width + width)}; }
// gate and up read, y written, [T, F].
inline Cost silu_mul_cost(double tokens, double width) { return {.bytes = kBf16 * 3 * tokens * width}; }
// A row of the table read and written a token.
inline Cost embedding_cost(double tokens, double width) { return {.bytes = tokens * (kWord + kBf16 * 2 * width)}; }
// A position read, D/2 cosines and sines written, f32.
inline Cost rope_angles_cost(double tokens, double head_size) { return {.bytes = tokens * kWord * (1 + head_size)}; }
// Between fp8 products: x and delta read, x and y8 written; f32 weights and factors of columns read.
inline Cost rms_norm_fp8_cost(double tokens, double width) { return {.bytes = (3 * kBf16 + kFp8) * tokens * width + 2 * kWord * (width + tokens)}; }
// Likewise: gate and up read, y8 written; factors of their columns read.
inline Cost silu_mul_fp8_cost(double tokens, double width) { return {.bytes = (2 * kBf16 + kFp8) * tokens * width + 2 * kWord * (width + tokens)}; }
inline Cost quantize_fp8_cost(double rows, double width) { return {.bytes = rows * ((kBf16 + kFp8) * width + kWord)}; }
// y read and written in place, both vectors of factors read.
inline Cost apply_scales_cost(double tokens, double outputs) { return {.bytes = kBf16 * 2 * tokens * outputs + kWord * (tokens + outputs)}; }

struct ProductSize {
  double tokens = 0, outputs = 0, depth = 0;
  double weight_bytes = kBf16;  // of x and w
  double out_bytes = kBf16;     // of y
};
inline Cost linear_cost(const ProductSize& p) {
  return {.bytes = p.weight_bytes * p.depth * (p.outputs + p.tokens) + p.out_bytes * p.tokens * p.outputs,
          .flops = 2 * p.tokens * p.outputs * p.depth,
          .memory = MemoryLimit::read,
          .math = p.weight_bytes == kFp8 ? MathLimit::fp8 : MathLimit::bf16};
}

// Keys and values of one head's slot.
inline double slot_bytes(const ModelShape& m) { return 2 * kBf16 * static_cast<double>(m.head_size); }

// `slots`: of all sequences and KV heads. Two products of D with every query of the group for each.
inline Cost decode_attention_cost(const ModelShape& m, double slots) {
  return {.bytes = slots * slot_bytes(m), .flops = slots * 4 * static_cast<double>(m.head_size * m.group()), .memory = MemoryLimit::read};
}

struct PromptSize {
  double earlier = 0;  // tokens before the chunk
  double tokens = 0;   // of the chunk
  double slots = 0;    // over all KV heads, at the chunk's end
};
// FLOPs of usual causal attention over all tokens, whatever was compressed; bytes of q, own entries and out, and of the slots there are.
inline Cost prompt_attention_cost(const ModelShape& m, const PromptSize& p) {
  const double pairs = p.tokens * p.earlier + p.tokens * p.tokens / 2, size = static_cast<double>(m.head_size);
  const double rows = p.tokens * kBf16 * size * static_cast<double>(2 * m.query_heads + 2 * m.kv_heads);
  return {.bytes = rows + p.slots * slot_bytes(m), .flops = 4 * pairs * size * static_cast<double>(m.query_heads), .memory = MemoryLimit::copy};
}

struct UpdateSize {
  double tokens = 0;
  double ring_reads = 0;    // entries of the window that averages read, over tokens and heads
  double ring_writes = 0;   // entries kept, likewise
  double slot_writes = 0;   // slots written to pages, likewise
  bool own_entries = false; // prompts: own_k, own_v, and weight and age of each token
};
inline Cost update_cost(const ModelShape& m, const UpdateSize& u) {
  const double size = static_cast<double>(m.head_size), kv = static_cast<double>(m.kv_heads);
  const double each_token = kBf16 * (static_cast<double>(m.qkv_width()) + size * static_cast<double>(m.query_heads)) + kWord * size;
  const double each_head = kWord + (u.own_entries ? slot_bytes(m) + 2 * kWord : 0);  // own_slot and the like
  return {.bytes = u.tokens * (each_token + kv * each_head) + (u.ring_reads + u.ring_writes) * (slot_bytes(m) + kWord) + u.slot_writes * slot_bytes(m)};
}

// Every logit read once.
inline Cost sample_cost(double rows, double vocab) { return {.bytes = kWord * rows * vocab, .memory = MemoryLimit::read}; }

// f32 logits read and written.
inline Cost join_logits_cost(double rows, double vocab) { return {.bytes = 2 * kWord * rows * vocab}; }

}  // namespace accrete::launch
