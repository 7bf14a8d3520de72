// The real SmolLM2-135M-Instruct, quantized to Q4_1, against values that the gguf package read from the same file.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

class SmolLm2 : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("ACCRETE_TEST_MODEL");
    if (path == nullptr || *path == '\0') GTEST_SKIP() << "ACCRETE_TEST_MODEL names no model file";
    model_ = open_model(path, {});
  }
  std::vector<float> four(const char* name, int64_t row, int64_t column) const {
    std::vector<float> values(4);
    model_->read(name, {row, row + 1, column, column + 4}, DType::f32, values.data());
    return values;
  }
  std::unique_ptr<TensorSource> model_;
};

void expect_values(const std::vector<float>& found, const std::vector<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-8 + 2e-8 * std::abs(expected[i]));
}

TEST_F(SmolLm2, HasTheConfig) {
  const ModelConfig& config = model_->config();
  EXPECT_EQ(config.hidden, 576);
  EXPECT_EQ(config.mlp, 1536);
  EXPECT_EQ(config.layers, 30);
  EXPECT_EQ(config.query_heads, 9);
  EXPECT_EQ(config.kv_heads, 3);
  EXPECT_EQ(config.head_size, 64);
  EXPECT_EQ(config.vocab, 49152);
  EXPECT_EQ(config.max_position, 8192);
  EXPECT_FLOAT_EQ(static_cast<float>(config.rms_norm_eps), 1e-5f);
  EXPECT_EQ(config.rope_theta, 100000.0);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(model_->describe(), "GGUF Q4_1, 272 tensors, 97 MB");
}

TEST_F(SmolLm2, HasTheWeights) {
  expect_values(four("model.embed_tokens.weight", 1234, 100), {-0.5038452f, -0.01586914f, 0.1864624f, -0.035705566f});
  expect_values(four("model.layers.7.self_attn.q_proj.weight", 70, 33),
                {0.09362793f, 0.09362793f, -0.35159302f, -0.005310059f});
  expect_values(four("model.layers.29.self_attn.k_proj.weight", 191, 572),
                {-0.016998291f, -0.21487427f, 0.0819397f, 0.0819397f});
  expect_values(four("model.layers.11.self_attn.v_proj.weight", 5, 0),
                {-0.13897705f, 0.16287231f, 0.06225586f, 0.028717041f});
  expect_values(four("model.layers.0.mlp.down_proj.weight", 575, 1530),
                {-0.12054443f, -0.09013367f, -0.09013367f, -0.2421875f});
  expect_values(four("model.norm.weight", 0, 0), {1.7578125f, 1.8203125f, 1.78125f, 1.6015625f});
}

// A sum in which every row of a head has its own weight: a wrong order of rows would change it.
TEST_F(SmolLm2, HasQueryRowsInOrder) {
  std::vector<float> head(64 * 576);
  model_->read("model.layers.7.self_attn.q_proj.weight", {64, 128, 0, 576}, DType::f32, head.data());
  double sum = 0.0;
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 576; ++column)
      sum += (row + 1) * std::abs(static_cast<double>(head[row * 576 + column]));
  }
  EXPECT_NEAR(sum, 209525.09829711914, 1e-3);
}

TEST_F(SmolLm2, HasTheTokenizer) {
  const rpc::TokenizerSpec spec = model_->tokenizer();
  EXPECT_EQ(spec.gguf().model(), "gpt2");
  EXPECT_EQ(spec.gguf().pre(), "smollm");
  EXPECT_EQ(spec.gguf().tokens_size(), 49152);
  EXPECT_EQ(spec.gguf().merges_size(), 48900);
  EXPECT_EQ(spec.bos_token(), "<|im_start|>");
  EXPECT_EQ(spec.eos_token(), "<|im_end|>");
  EXPECT_FALSE(spec.add_bos_token());
  EXPECT_EQ(spec.chat_template().rfind("{% for message in messages %}", 0), 0u);
}

}  // namespace
}  // namespace accrete::worker
