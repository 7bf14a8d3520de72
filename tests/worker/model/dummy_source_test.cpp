#include "worker/model/dummy_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

constexpr const char* kGate = "model.layers.1.mlp.gate_proj.weight";  // [512, 256] of "tiny"

DummySource tiny(uint64_t seed) {
  return DummySource(dummy_config("tiny"), "tiny", seed);
}

TEST(DummySource, SlicesAgreeWithTheWhole) {
  const DummySource source = tiny(7);
  const std::vector<float> whole = read_all(source, kGate);
  const Slice slices[] = {
      {0, 512, 0, 256}, {13, 14, 255, 256}, {128, 256, 0, 256}, {0, 512, 64, 128}, {511, 512, 1, 250}};
  for (const Slice& slice : slices) {
    std::vector<float> part(static_cast<size_t>(slice.rows() * slice.columns()));
    std::vector<bf16> narrow(part.size());
    source.read(kGate, slice, DType::f32, part.data());
    source.read(kGate, slice, DType::bf16, narrow.data());
    for (int64_t i = 0; i < slice.rows() * slice.columns(); ++i) {
      const int64_t row = slice.row_begin + i / slice.columns(), column = slice.column_begin + i % slice.columns();
      ASSERT_EQ(part[static_cast<size_t>(i)], whole[static_cast<size_t>(row * 256 + column)]);
      ASSERT_EQ(narrow[static_cast<size_t>(i)].bits, bf16(part[static_cast<size_t>(i)]).bits);
    }
  }
}

// Columns past one chunk of the generator.
TEST(DummySource, WideSlicesAgree) {
  const DummySource source(dummy_config("llama-2-7b"), "llama-2-7b", 0);
  const std::string name = "model.layers.31.mlp.down_proj.weight";  // [4096, 11008]
  std::vector<float> row(11008), part(5000);
  source.read(name, {4095, 4096, 0, 11008}, DType::f32, row.data());
  source.read(name, {4095, 4096, 2049, 7049}, DType::f32, part.data());
  EXPECT_EQ(0, std::memcmp(part.data(), row.data() + 2049, part.size() * sizeof(float)));
}

TEST(DummySource, DependsOnSeedAndName) {
  const std::vector<float> values = read_all(tiny(1), kGate);
  EXPECT_EQ(values, read_all(tiny(1), kGate));
  EXPECT_NE(values, read_all(tiny(2), kGate));
  EXPECT_NE(values, read_all(tiny(1), "model.layers.1.mlp.up_proj.weight"));
  EXPECT_NE(values, read_all(tiny(1), "model.layers.0.mlp.gate_proj.weight"));
  EXPECT_EQ(tiny(1).hash(), tiny(1).hash());
  EXPECT_NE(tiny(1).hash(), tiny(2).hash());
}

// 131,072 draws: the mean's deviation is 0.02 / 362, the correlations' 1 / 362. Bounds of five of those.
TEST(DummySource, IsABellCurveWithoutCorrelation) {
  const std::vector<float> values = read_all(tiny(3), kGate);
  double sum = 0.0, squares = 0.0, beside = 0.0, below = 0.0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i] / 0.02;
    sum += value;
    squares += value * value;
    if (i + 1 < values.size()) beside += value * (values[i + 1] / 0.02);
    if (i + 256 < values.size()) below += value * (values[i + 256] / 0.02);
  }
  const auto count = static_cast<double>(values.size());
  const double bound = 5.0 / std::sqrt(count);
  EXPECT_NEAR(sum / count, 0.0, bound);
  EXPECT_NEAR(squares / count, 1.0, 2.0 * bound);
  EXPECT_NEAR(beside / count, 0.0, bound);
  EXPECT_NEAR(below / count, 0.0, bound);
}

TEST(DummySource, NormsAreOne) {
  for (const char* name : {"model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.1.post_attention_layernorm.weight"}) {
    EXPECT_EQ(read_all(tiny(0), name), std::vector<float>(256, 1.0f)) << name;
  }
}

TEST(DummySource, KnowsTheShapesOfLlama2) {
  const ModelConfig config = dummy_config("llama-2-70b");
  EXPECT_EQ(config.hidden, 8192);
  EXPECT_EQ(config.kv_heads, 8);
  EXPECT_EQ(config.head_size, 128);
  EXPECT_EQ(config.mlp, 28672);
  const DummySource source(config, "llama-2-70b", 0);
  EXPECT_EQ(source.shape("model.layers.79.self_attn.k_proj.weight"), std::pair(int64_t{1024}, int64_t{8192}));
  EXPECT_FALSE(source.has("model.layers.80.self_attn.k_proj.weight"));
  EXPECT_EQ(dummy_config("llama-2-13b").layers, 40);
  EXPECT_EQ(source.bytes_on_disk(), 0);
  EXPECT_EQ(source.tokenizer().kind_case(), rpc::TokenizerSpec::KIND_NOT_SET);
}

TEST(DummySource, TakesADirectoryWithAConfigAlone) {
  const TempDir directory;
  directory.write("config.json", kTinyConfig);
  directory.write("generation_config.json", R"({"eos_token_id": 5, "top_p": 0.5})");
  directory.write("tokenizer.model", "sp");
  const DummySource source(directory.path(), 0);
  EXPECT_EQ(source.config().hidden, 8);
  EXPECT_EQ(source.config().eos_token_ids, (std::vector<int32_t>{5}));
  EXPECT_EQ(source.generation_defaults().top_p(), 0.5f);
  EXPECT_EQ(source.tokenizer().sentencepiece(), "sp");
}

}  // namespace
}  // namespace accrete::worker
