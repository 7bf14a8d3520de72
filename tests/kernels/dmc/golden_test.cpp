// dmc_golden: the outputs of DMC's authors' own code, reproduced token by token, in one pass and in chunks.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/backend.h"
#include "kernels/thread_pool.h"
#include "tests/kernels/dmc/cache_tables.h"
#include "tests/kernels/dmc/golden_file.h"

namespace accrete {
namespace {

// Greatest absolute differences from a golden file.
struct Maxima {
  double out = 0.0, decode = 0.0, pooled_k = 0.0, pooled_v = 0.0;
  int64_t wrong_slots = 0;
};

void keep_largest(double& worst, double found, double wanted) {
  const double difference = std::abs(found - wanted);
  worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
}

// Runs one file's sequences (its batch) through the ops in chunks of the given lengths, all sequences side by side.
class GoldenRun {
 public:
  GoldenRun(const GoldenFile& file, DType cache_type)
      : file_(file),
        tables_({.layers = 1,
                 .rows = file.batch,
                 .kv_heads = file.kv_heads,
                 .head_size = file.head_size,
                 .max_pages = (file.tokens + 15) / 16,
                 .pages = file.batch * file.kv_heads * ((file.tokens + 15) / 16),
                 .window = static_cast<int>(file.window),
                 .dtype = cache_type}),
        pool_(2) {}

  Maxima run(const std::vector<int64_t>& chunks) {
    int64_t begin = 0;
    for (int64_t length : chunks) {
      step(begin, length);
      begin += length;
    }
    EXPECT_EQ(begin, file_.tokens);
    EXPECT_EQ(tables_.exhausted, 0);
    return maxima_;
  }

 private:
  // Tokens [begin, begin + length) of every sequence.
  void step(int64_t begin, int64_t length) {
    const int64_t total = length * file_.batch, D = file_.head_size, Hq = file_.query_heads, Hkv = file_.kv_heads;
    std::vector<int32_t> row(file_.batch), offsets(file_.batch + 1), position(total);
    std::vector<uint64_t> keys(file_.batch);
    for (int64_t b = 0; b < file_.batch; ++b) {
      row[b] = static_cast<int32_t>(file_.batch - 1 - b);  // rows in another order than sequences
      offsets[b + 1] = static_cast<int32_t>((b + 1) * length);
      for (int64_t i = 0; i < length; ++i) position[b * length + i] = static_cast<int32_t>(begin + i);
    }
    std::vector<float> qkv = gather(begin, length);
    std::vector<double> inv_freq(D / 2);
    for (int64_t i = 0; i < D / 2; ++i) inv_freq[i] = std::pow(file_.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
    std::vector<float> cos(total * D / 2), sin(cos), q(total * Hq * D), own_k(total * Hkv * D), own_v(own_k), out(q);
    std::vector<int32_t> own_slot(total * Hkv);
    Stream stream{&pool_};
    const StepBatch batch{{row.data(), {file_.batch}}, {offsets.data(), {file_.batch + 1}}, {position.data(), {total}}, {keys.data(), {file_.batch}}};
    const View<float, 2> cos_view(cos.data(), {total, D / 2}), sin_view(sin.data(), {total, D / 2});
    rope_angles_cpu({batch.position, View<double, 1>(inv_freq.data(), {D / 2}), cos_view, sin_view}, stream);
    DmcUpdate update;
    update.dmc.mode = DmcMode::learned;
    update.dmc.window = static_cast<int>(file_.window);
    update.dmc.offset = static_cast<float>(file_.offset);
    update.batch = batch;
    update.cache = tables_.ref();
    update.qkv = View<float, 2>(qkv.data(), {total, (Hq + 2 * Hkv) * D});
    update.cos = cos_view;
    update.sin = sin_view;
    update.q = View<float, 3>(q.data(), {total, Hq, D});
    update.own_k = View<float, 3>(own_k.data(), {total, Hkv, D});
    update.own_v = View<float, 3>(own_v.data(), {total, Hkv, D});
    update.own_slot = View<int32_t, 2>(own_slot.data(), {total, Hkv});
    cpu_backend().dmc_update(update, stream);
    const View<float, 3> out_view(out.data(), {total, Hq, D});
    cpu_backend().attention({batch, tables_.ref(), 0, update.q, update.own_k, update.own_v, update.own_slot, out_view}, stream);
    compare_slots(update, begin, length);
    compare_pooled(update, begin, length);
    compare_out(out_view, begin, length);
  }

  std::vector<float> gather(int64_t begin, int64_t length) const {
    const int64_t D = file_.head_size;
    std::vector<float> qkv;
    for (int64_t b = 0; b < file_.batch; ++b) {
      for (int64_t t = begin; t < begin + length; ++t) {
        for (const auto& [name, heads] : {std::pair<const char*, int64_t>{"q", file_.query_heads}, {"k", file_.kv_heads}, {"v", file_.kv_heads}}) {
          const GoldenTensor& tensor = file_.tensor(name);
          const float* from = tensor.f32.data() + (t * file_.batch + b) * heads * D;
          qkv.insert(qkv.end(), from, from + heads * D);
        }
      }
    }
    return qkv;
  }

  void compare_slots(const DmcUpdate& update, int64_t begin, int64_t length) {
    if (!file_.tensors.contains("slot")) return;
    const GoldenTensor& slot = file_.tensor("slot");
    for (int64_t i = 0; i < length * file_.batch; ++i) {
      const int64_t b = i / length, t = begin + i % length;
      for (int64_t h = 0; h < file_.kv_heads; ++h) {
        maxima_.wrong_slots += update.own_slot(i, h) != slot.i32.at((t * file_.batch + b) * file_.kv_heads + h);
      }
    }
  }

  // pooled_k is unrotated: rotate it as the paper does and compare with the token's own entry.
  void compare_pooled(const DmcUpdate& update, int64_t begin, int64_t length) {
    const int64_t D = file_.head_size, half = D / 2;
    for (int64_t i = 0; i < length * file_.batch; ++i) {
      const int64_t b = i / length, t = begin + i % length;
      for (int64_t h = 0; h < file_.kv_heads; ++h) {
        for (int64_t d = 0; d < D; ++d) {
          const double angle = static_cast<double>(t) * std::pow(file_.rope_theta, -static_cast<double>(d % half) / static_cast<double>(half));
          const double low = file_.at("pooled_k", t, b, h, d % half), high = file_.at("pooled_k", t, b, h, d % half + half);
          double wanted = d < half ? low * std::cos(angle) - high * std::sin(angle) : low * std::sin(angle) + high * std::cos(angle);
          if (d == D - 1) wanted = 0.0;
          keep_largest(maxima_.pooled_k, update.own_k.as<float>()(i, h, d), wanted);
          keep_largest(maxima_.pooled_v, update.own_v.as<float>()(i, h, d), file_.at("pooled_v", t, b, h, d));
        }
      }
    }
  }

  void compare_out(const View<float, 3>& out, int64_t begin, int64_t length) {
    for (int64_t i = 0; i < length * file_.batch; ++i) {
      const int64_t b = i / length, t = begin + i % length;
      for (int64_t h = 0; h < file_.query_heads; ++h) {
        for (int64_t d = 0; d < file_.head_size; ++d) {
          keep_largest(maxima_.out, out(i, h, d), file_.at("attn_out", t, b, h, d));
          if (file_.tensors.contains("attn_out_decode")) keep_largest(maxima_.decode, out(i, h, d), file_.at("attn_out_decode", t, b, h, d));
        }
      }
    }
  }

  const GoldenFile& file_;
  CacheTables tables_;
  ThreadPool pool_;
  Maxima maxima_;
};

void expect_within(const std::string& what, const Maxima& found, double bound) {
  std::printf("dmc_golden %s: attn_out %.1e attn_out_decode %.1e pooled_k %.1e pooled_v %.1e wrong slots %ld\n", what.c_str(), found.out,
              found.decode, found.pooled_k, found.pooled_v, static_cast<long>(found.wrong_slots));
  EXPECT_LT(found.out, bound) << what;
  EXPECT_LT(found.decode, bound) << what;
  EXPECT_LT(found.pooled_k, 2e-5) << what;
  EXPECT_LT(found.pooled_v, 2e-5) << what;
  EXPECT_EQ(found.wrong_slots, 0) << what;
}

std::vector<int64_t> even_chunks(int64_t tokens, int64_t length) {
  std::vector<int64_t> chunks(tokens / length, length);
  if (tokens % length != 0) chunks.push_back(tokens % length);
  return chunks;
}

// 2e-5 in f32; with a bf16 cache 2e-2 (keys and values round once, decisions are made on the f32 projections).
constexpr double kBoundF32 = 2e-5, kBoundBf16 = 2e-2;

template <class Body>
void for_each_file(Body&& body) {
  for (const auto& path : golden_files()) body(read_golden(path));
}

TEST(dmc_golden, token_by_token) {
  for_each_file([](const GoldenFile& file) {
    expect_within(file.name + " token by token", GoldenRun(file, DType::f32).run(even_chunks(file.tokens, 1)), kBoundF32);
  });
}

TEST(dmc_golden, one_pass_prefill) {
  for_each_file([](const GoldenFile& file) {
    expect_within(file.name + " one pass", GoldenRun(file, DType::f32).run({file.tokens}), kBoundF32);
  });
}

TEST(dmc_golden, chunked_prefill) {
  for_each_file([](const GoldenFile& file) {
    for (int64_t length : {7, 16, 50}) {
      const std::string what = file.name + " chunks of " + std::to_string(length);
      expect_within(what, GoldenRun(file, DType::f32).run(even_chunks(file.tokens, length)), kBoundF32);
    }
  });
}

TEST(dmc_golden, prompt_in_random_chunks_then_decode) {
  std::mt19937 random(20240314);
  for_each_file([&](const GoldenFile& file) {
    std::vector<int64_t> chunks;
    int64_t left = file.tokens;
    while (left > file.tokens / 4) {
      chunks.push_back(std::uniform_int_distribution<int64_t>(1, std::min<int64_t>(left - file.tokens / 4, 40))(random));
      left -= chunks.back();
    }
    chunks.insert(chunks.end(), left, 1);
    expect_within(file.name + " random chunks, then tokens", GoldenRun(file, DType::f32).run(chunks), kBoundF32);
  });
}

TEST(dmc_golden, bf16_cache) {
  for_each_file([](const GoldenFile& file) {
    expect_within(file.name + " bf16 cache, one pass", GoldenRun(file, DType::bf16).run({file.tokens}), kBoundBf16);
    expect_within(file.name + " bf16 cache, token by token", GoldenRun(file, DType::bf16).run(even_chunks(file.tokens, 1)), kBoundBf16);
  });
}

}  // namespace
}  // namespace accrete
