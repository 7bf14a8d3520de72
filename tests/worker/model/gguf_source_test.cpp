#include "worker/model/gguf_source.h"

#include <gtest/gtest.h>

#include "tests/worker/model/model_files.h"
#include "worker/model/gguf_metadata.h"
#include "worker/model/hf_source.h"
#include "worker/model/network_tensors.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

// Borrowed bytes must outlive the source: the tests keep them in `bytes`.
GgufSource open(const std::string& bytes) {
  return GgufSource(FileBytes::borrow({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m.gguf"));
}

// The same weights in Hugging Face's form and in llama.cpp's, whose q and k rows stand in pairs.
TEST(GgufSource, EqualsTheHuggingFaceForm) {
  const TempDir directory;
  write_tiny_model(directory);
  const HfSource hf(directory.path());
  const std::string bytes = tiny_gguf().build();
  const GgufSource gguf = open(bytes);
  visit_tensors(hf.config(), [&](const std::string& name, int64_t rows, int64_t columns) {
    EXPECT_EQ(gguf.shape(name), std::pair(rows, columns)) << name;
    EXPECT_EQ(read_all(gguf, name), read_all(hf, name)) << name;
  });
}

TEST(GgufSource, UndoesThePairsInRowSlices) {
  const std::string bytes = tiny_gguf().build();
  const GgufSource gguf = open(bytes);
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  for (int64_t begin = 0; begin < 12; ++begin) {
    for (int64_t end = begin + 1; end <= 12; ++end) {
      std::vector<float> part(static_cast<size_t>((end - begin) * 3));
      gguf.read(name, {begin, end, 2, 5}, DType::f32, part.data());
      for (int64_t i = 0; i < (end - begin) * 3; ++i) {
        ASSERT_EQ(part[static_cast<size_t>(i)], tiny_value(name, begin + i / 3, 2 + i % 3)) << begin << " " << end;
      }
    }
  }
}

TEST(GgufSource, ReadsTheConfig) {
  const std::string bytes = tiny_gguf().build();
  const ModelConfig config = open(bytes).config();
  EXPECT_EQ(config.hidden, 8);
  EXPECT_EQ(config.mlp, 12);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.query_heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_size, 6);
  EXPECT_EQ(config.vocab, 10);
  EXPECT_EQ(config.max_position, 64);
  EXPECT_EQ(config.rope_theta, 500.0);
  EXPECT_FALSE(config.tied_embeddings);
  EXPECT_FALSE(config.rope_scaling.has_value());
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_EQ(config.bos_token_id, -1);
}

TEST(GgufSource, TiesEmbeddingsWithoutAnOutput) {
  const std::string bytes = tiny_gguf(false).build();
  const GgufSource gguf = open(bytes);
  EXPECT_TRUE(gguf.config().tied_embeddings);
  EXPECT_FALSE(gguf.has("lm_head.weight"));
}

TEST(GgufSource, FoldsRopeFactorsIntoTheFrequencies) {
  const std::string plain_bytes = tiny_gguf().build();
  const std::string bytes =
      tiny_gguf().tensor("rope_freqs.weight", {3}, 0, bytes_of_floats({1.0f, 4.0f, 32.0f})).build();
  const std::vector<double> plain = rope_frequencies(open(plain_bytes).config());
  const std::vector<double> scaled = rope_frequencies(open(bytes).config());
  EXPECT_EQ(scaled[0], plain[0]);
  EXPECT_EQ(scaled[1], plain[1] / 4.0);
  EXPECT_EQ(scaled[2], plain[2] / 32.0);
}

TEST(GgufSource, ReadsLinearScaling) {
  const std::string bytes =
      tiny_gguf().text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0f).build();
  const ModelConfig config = open(bytes).config();
  ASSERT_TRUE(config.rope_scaling.has_value());
  EXPECT_EQ(config.rope_scaling->kind, RopeScaling::Kind::linear);
  EXPECT_EQ(config.rope_scaling->factor, 4.0);
  const std::string old_bytes = tiny_gguf().f32("llama.rope.scale_linear", 2.0f).build();
  EXPECT_EQ(open(old_bytes).config().rope_scaling->factor, 2.0);
}

TEST(GgufSource, HashTellsWeightsApart) {
  const std::string bytes = tiny_gguf().build();
  std::string other = bytes;
  other[other.size() - 10 * 8 * 2] ^= 1;  // the middle of lm_head, the last tensor
  EXPECT_EQ(open(bytes).hash(), open(bytes).hash());
  EXPECT_NE(open(bytes).hash(), open(other).hash());
  EXPECT_EQ(open(bytes).hash().size(), 64u);
  EXPECT_EQ(open(bytes).bytes_on_disk(), static_cast<int64_t>(bytes.size()));
}

GgufBuilder with_tokenizer(const std::string& model) {
  GgufBuilder file = tiny_gguf();
  file.text("tokenizer.ggml.model", model).texts("tokenizer.ggml.tokens", {"a", "b", "<s>", "<|eot_id|>", "\xff"});
  return file.i32s("tokenizer.ggml.token_type", {1, 1, 3, 3, 1});
}

TEST(GgufSource, PassesTheTokenizerOn) {
  const std::string bytes = with_tokenizer("gpt2")
                                .text("tokenizer.ggml.pre", "smollm")
                                .texts("tokenizer.ggml.merges", {"a b"})
                                .u32("tokenizer.ggml.bos_token_id", 2)
                                .u32("tokenizer.ggml.eos_token_id", 1)
                                .u32("tokenizer.ggml.unknown_token_id", ~0u)
                                .boolean("tokenizer.ggml.add_bos_token", true)
                                .text("tokenizer.chat_template", "{{ messages }}")
                                .build();
  const GgufSource gguf = open(bytes);
  const rpc::TokenizerSpec spec = gguf.tokenizer();
  ASSERT_TRUE(spec.has_gguf());
  EXPECT_EQ(spec.gguf().model(), "gpt2");
  EXPECT_EQ(spec.gguf().pre(), "smollm");
  EXPECT_EQ(spec.gguf().tokens_size(), 5);
  EXPECT_EQ(spec.gguf().tokens(4), "\xff");
  EXPECT_EQ(spec.gguf().token_types(3), 3);
  EXPECT_EQ(spec.gguf().merges(0), "a b");
  EXPECT_EQ(spec.gguf().bos_id(), 2);
  EXPECT_EQ(spec.gguf().unknown_id(), -1);
  EXPECT_FALSE(spec.gguf().add_space_prefix());
  EXPECT_EQ(spec.bos_token(), "<s>");
  EXPECT_EQ(spec.eos_token(), "b");
  EXPECT_TRUE(spec.add_bos_token());
  EXPECT_EQ(spec.chat_template(), "{{ messages }}");
  // The named id and the control token that ends a turn.
  EXPECT_EQ(gguf.config().eos_token_ids, (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(gguf.config().bos_token_id, 2);
}

TEST(GgufSource, FillsInWhatTheTokenizerLeavesOut) {
  const std::string sentencepiece =
      with_tokenizer("llama").floats("tokenizer.ggml.scores", {0, -1, -2, -3, -4}).build();
  EXPECT_TRUE(open(sentencepiece).tokenizer().add_bos_token());
  EXPECT_TRUE(open(sentencepiece).tokenizer().gguf().add_space_prefix());
  EXPECT_EQ(open(sentencepiece).tokenizer().gguf().scores(4), -4.0f);
  const std::string bpe = with_tokenizer("gpt2").build();
  EXPECT_FALSE(open(bpe).tokenizer().add_bos_token());
  const std::string llama3 = with_tokenizer("gpt2").text("tokenizer.ggml.pre", "llama-bpe").build();
  EXPECT_TRUE(open(llama3).tokenizer().add_bos_token());
  const std::string none = tiny_gguf().build();
  EXPECT_EQ(open(none).tokenizer().kind_case(), rpc::TokenizerSpec::KIND_NOT_SET);
}

TEST(GgufSource, RefusesTokenizersThatDoNotFit) {
  const auto refusal = [](GgufBuilder& file) {
    const std::string bytes = file.build();
    return error_of([&] { open(bytes).tokenizer(); });
  };
  EXPECT_NE(refusal(tiny_gguf().text("tokenizer.ggml.model", "bert")).find("\"bert\""), std::string::npos);
  EXPECT_NE(refusal(tiny_gguf().text("tokenizer.ggml.model", "gpt2")).find("tokens is missing"), std::string::npos);
  GgufBuilder scores = with_tokenizer("llama");
  EXPECT_NE(refusal(scores.floats("tokenizer.ggml.scores", {1, 2})).find("scores has 2 elements"), std::string::npos);
  GgufBuilder bos = with_tokenizer("llama");
  EXPECT_NE(refusal(bos.u32("tokenizer.ggml.bos_token_id", 5)).find("bos_token_id is 5"), std::string::npos);
  GgufBuilder merges = with_tokenizer("gpt2");
  EXPECT_NE(refusal(merges.texts("tokenizer.ggml.merges", {"\xc0\x80"})).find("not UTF-8"), std::string::npos);
  GgufBuilder chat = with_tokenizer("gpt2");
  EXPECT_NE(refusal(chat.text("tokenizer.chat_template", std::string(2 << 20, 'x'))).find("chat_template"),
            std::string::npos);
}

struct Unfit {
  const char* name;
  GgufBuilder file;
  std::string message;
};

GgufBuilder metadata_only(const std::string& architecture) {
  return GgufBuilder().text("general.architecture", architecture);
}

GgufBuilder heads(uint32_t query, uint32_t kv) {
  GgufBuilder file = metadata_only("llama");
  file.u32("llama.block_count", 1).u32("llama.embedding_length", 8).u32("llama.feed_forward_length", 12);
  file.u32("llama.attention.head_count", query)
      .u32("llama.attention.head_count_kv", kv)
      .u32("llama.context_length", 64);
  return file.tensor("token_embd.weight", {8, 10}, 0, std::string(320, '\0'));
}

std::vector<Unfit> unfit_files() {
  return {
      {"no_architecture", GgufBuilder(), "general.architecture is \"\""},
      {"another_architecture", metadata_only("qwen2"), "general.architecture is \"qwen2\""},
      {"no_sizes", metadata_only("llama"), "llama.embedding_length is missing"},
      {"no_heads", heads(0, 1), "head_count 0"},
      {"heads_do_not_divide", heads(3, 1), "no multiple of llama.attention.head_count 3"},
      {"kv_heads_do_not_divide", heads(4, 3), "no multiple of num_key_value_heads 3"},
      {"odd_head_size", heads(8, 8), "head_dim must be even"},
      {"tensors_missing", heads(4, 2), "tensor model.layers.0.input_layernorm.weight is missing"},
      {"sizes_are_text", metadata_only("llama").text("llama.embedding_length", "8"), "llama.embedding_length must be"},
      {"experts", tiny_gguf().u32("llama.expert_count", 8), "llama.expert_count is 8"},
      {"split", tiny_gguf().u32("split.count", 3), "split.count is 3"},
      {"sliding_window", tiny_gguf().u32("llama.attention.sliding_window", 16), "sliding_window is 16"},
      {"yarn", tiny_gguf().text("llama.rope.scaling.type", "yarn"), "\"yarn\""},
      {"rope_factors_misshaped", tiny_gguf().tensor("rope_freqs.weight", {4}, 0, std::string(16, '\0')),
       "rope_freqs.weight"},
      {"rope_factors_zero", tiny_gguf().tensor("rope_freqs.weight", {3}, 0, std::string(12, '\0')), "rope factor is 0"},
      {"unknown_tensor", tiny_gguf().tensor("blk.0.attn_q.bias", {24}, 0, std::string(96, '\0')),
       "\"blk.0.attn_q.bias\""},
      {"layer_without_a_number", tiny_gguf().tensor("blk.attn_q", {24}, 0, std::string(96, '\0')),
       "no tensor of a Llama"},
      {"three_dimensions", tiny_gguf().tensor("blk.9.attn_q.weight", {4, 2, 2}, 0, std::string(64, '\0')),
       "neither a matrix"},
  };
}

class GgufUnfit : public ::testing::TestWithParam<Unfit> {};

TEST_P(GgufUnfit, IsRefusedWithItsReason) {
  const std::string bytes = GetParam().file.build();
  const std::string message = error_of([&] { open(bytes); });
  EXPECT_NE(message.find("m.gguf: "), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Files, GgufUnfit, ::testing::ValuesIn(unfit_files()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace accrete::worker
