#include "worker/model/lora_source.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/worker/model/model_files.h"
#include "worker/model/gguf_source.h"
#include "worker/model/hf_source.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files
using nlohmann::json;

constexpr const char* kQuery = "model.layers.0.self_attn.q_proj";
constexpr const char* kDown = "model.layers.1.mlp.down_proj";
constexpr int64_t kRank = 3;

json plain_config() {
  return {{"peft_type", "LORA"},
          {"r", kRank},
          {"lora_alpha", 6.0},
          {"bias", "none"},
          {"target_modules", {"q_proj", "down_proj"}},
          {"use_dora", false},
          {"fan_in_fan_out", false},
          {"init_lora_weights", true},
          {"layer_replication", nullptr}};
}

std::string full_name(const std::string& module, const char* half) {
  return "base_model.model." + module + "." + half + ".weight";
}

void add_pair(std::vector<TestTensor>& tensors, const std::string& module, int64_t rank, int64_t rows,
              int64_t columns) {
  const std::string a = full_name(module, "lora_A"), b = full_name(module, "lora_B");
  tensors.push_back(f32_tensor(a, {rank, columns}, tiny_values(a, rank, columns)));
  tensors.push_back(f32_tensor(b, {rows, rank}, tiny_values(b, rows, rank)));
}

std::vector<TestTensor> plain_tensors() {
  std::vector<TestTensor> tensors;
  add_pair(tensors, kQuery, kRank, 24, 8);
  add_pair(tensors, kDown, kRank, 8, 12);
  return tensors;
}

void write_adapter(const TempDir& directory, const json& config, const std::vector<TestTensor>& tensors) {
  directory.write("adapter_config.json", config.dump());
  directory.write("adapter_model.safetensors", safetensors_file(tensors));
}

std::unique_ptr<TensorSource> tiny_model() {
  static const TempDir directory;
  write_tiny_model(directory);
  return std::make_unique<HfSource>(directory.path());
}

double merged(const std::string& module, int64_t row, int64_t column, int64_t rank, double scale) {
  double sum = 0.0;
  for (int64_t k = 0; k < rank; ++k) {
    sum += static_cast<double>(tiny_value(full_name(module, "lora_B"), row, k)) *
           static_cast<double>(tiny_value(full_name(module, "lora_A"), k, column));
  }
  return static_cast<double>(tiny_value(module + ".weight", row, column)) + scale * sum;
}

// Slice against fp64 loops. The sum has `rank` terms of at most 4 each, and the weight 2 more.
void expect_merged(const TensorSource& source, const std::string& module, const Slice& slice, double scale,
                   int64_t rank = kRank) {
  std::vector<float> found(static_cast<size_t>(slice.rows() * slice.columns()));
  std::vector<bf16> narrow(found.size());
  source.read(module + ".weight", slice, DType::f32, found.data());
  source.read(module + ".weight", slice, DType::bf16, narrow.data());
  const double largest = 4.0 * static_cast<double>(rank) * scale + 2.0;
  for (int64_t i = 0; i < slice.rows() * slice.columns(); ++i) {
    const int64_t row = slice.row_begin + i / slice.columns(), column = slice.column_begin + i % slice.columns();
    const double expected = merged(module, row, column, rank, scale);
    const auto at = static_cast<size_t>(i);
    EXPECT_NEAR(found[at], expected, static_cast<double>(rank + 3) * 0x1p-24 * largest) << row << " " << column;
    EXPECT_EQ(narrow[at].bits, bf16(found[at]).bits);
  }
}

TEST(LoraSource, MergesInEverySlice) {
  const TempDir directory;
  write_adapter(directory, plain_config(), plain_tensors());
  const LoraSource source(tiny_model(), directory.path());
  expect_merged(source, kQuery, {0, 24, 0, 8}, 2.0);
  expect_merged(source, kQuery, {7, 13, 2, 5}, 2.0);
  expect_merged(source, kDown, {0, 8, 5, 12}, 2.0);
  expect_merged(source, kDown, {7, 8, 11, 12}, 2.0);
  source.read(std::string(kQuery) + ".weight", {4, 4, 0, 8}, DType::f32, nullptr);
}

TEST(LoraSource, LeavesOtherTensorsAlone) {
  const TempDir directory;
  write_adapter(directory, plain_config(), plain_tensors());
  const LoraSource source(tiny_model(), directory.path());
  const std::string untouched = "model.layers.1.self_attn.q_proj.weight";
  EXPECT_EQ(read_all(source, untouched), tiny_values(untouched, 24, 8));
  EXPECT_EQ(source.shape(untouched), std::pair(int64_t{24}, int64_t{8}));
  EXPECT_TRUE(source.has("lm_head.weight"));
  EXPECT_NE(source.hash(), tiny_model()->hash());
  EXPECT_NE(source.describe().find("a LoRA of 2 layers"), std::string::npos);
}

// Large enough that rows are merged in several groups.
TEST(LoraSource, MergesLargeMatricesInGroups) {
  OpenOptions options;
  options.load_format = "dummy";
  const TempDir directory;
  const std::string module = "model.layers.0.mlp.up_proj";
  std::vector<TestTensor> tensors;
  add_pair(tensors, module, kRank, 11008, 4096);
  json config = plain_config();
  config["target_modules"] = {"up_proj"};
  write_adapter(directory, config, tensors);
  const std::unique_ptr<TensorSource> base = open_model("llama-2-7b", options);
  options.adapter = directory.path();
  const std::unique_ptr<TensorSource> source = open_model("llama-2-7b", options);
  const Slice slice{1000, 1200, 10, 4000};
  std::vector<float> plain(200 * 3990), found(200 * 3990);
  base->read(module + ".weight", slice, DType::f32, plain.data());
  source->read(module + ".weight", slice, DType::f32, found.data());
  for (int64_t i = 0; i < 200 * 3990; i += 977) {
    const int64_t row = 1000 + i / 3990, column = 10 + i % 3990;
    const double delta =
        merged(module, row, column, kRank, 2.0) - static_cast<double>(tiny_value(module + ".weight", row, column));
    ASSERT_NEAR(found[static_cast<size_t>(i)], static_cast<double>(plain[static_cast<size_t>(i)]) + delta, 1e-5);
  }
}

TEST(LoraSource, MergesOverAGguf) {
  const std::string bytes = tiny_gguf().build();
  const TempDir directory;
  write_adapter(directory, plain_config(), plain_tensors());
  auto base = std::make_unique<GgufSource>(
      FileBytes::borrow({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m"));
  const LoraSource source(std::move(base), directory.path());
  expect_merged(source, kQuery, {3, 20, 1, 8}, 2.0);
}

TEST(LoraSource, ScalesAsTheConfigSays) {
  const TempDir directory;
  json config = plain_config();
  config["use_rslora"] = true;
  write_adapter(directory, config, plain_tensors());
  expect_merged(LoraSource(tiny_model(), directory.path()), kQuery, {0, 24, 0, 8}, 6.0 / std::sqrt(3.0));
  config = plain_config();
  config["alpha_pattern"] = {{"down_proj", 1.5}};
  config["rank_pattern"] = {{"layers.1.mlp.down_proj", 2}};
  std::vector<TestTensor> tensors;
  add_pair(tensors, kQuery, kRank, 24, 8);
  add_pair(tensors, kDown, 2, 8, 12);
  write_adapter(directory, config, tensors);
  const LoraSource source(tiny_model(), directory.path());
  expect_merged(source, kQuery, {0, 24, 0, 8}, 2.0);
  expect_merged(source, kDown, {0, 8, 0, 12}, 0.75, 2);
}

TEST(LoraSource, TakesModulesToSave) {
  const TempDir directory;
  json config = plain_config();
  config["modules_to_save"] = {"lm_head"};
  std::vector<TestTensor> tensors = plain_tensors();
  tensors.push_back(bf16_tensor("base_model.model.lm_head.weight", {10, 8}, tiny_values("saved", 10, 8)));
  write_adapter(directory, config, tensors);
  const LoraSource source(tiny_model(), directory.path());
  EXPECT_EQ(read_all(source, "lm_head.weight"), tiny_values("saved", 10, 8));
}

TEST(LoraSource, EndsTheTieOfAnOutputWithItsOwnWeights) {
  const std::string bytes = tiny_gguf(false).build();
  const TempDir directory;
  json config = plain_config();
  config["target_modules"] = {"lm_head"};
  std::vector<TestTensor> tensors;
  add_pair(tensors, "lm_head", kRank, 10, 8);
  write_adapter(directory, config, tensors);
  auto base = std::make_unique<GgufSource>(
      FileBytes::borrow({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m"));
  const LoraSource source(std::move(base), directory.path());
  EXPECT_FALSE(source.config().tied_embeddings);
  ASSERT_TRUE(source.has("lm_head.weight"));
  const double expected = merged("lm_head", 4, 5, kRank, 2.0) -
                          static_cast<double>(tiny_value("lm_head.weight", 4, 5)) +
                          static_cast<double>(tiny_value("model.embed_tokens.weight", 4, 5));
  EXPECT_NEAR(read_all(source, "lm_head.weight")[4 * 8 + 5], expected, 1e-5);
  EXPECT_EQ(read_all(source, "model.embed_tokens.weight"), tiny_values("model.embed_tokens.weight", 10, 8));
}

TEST(LoraSource, OverridesDmc) {
  const TempDir directory;
  json config = plain_config();
  config["dmc"] = {{"target_cr", 8.0}};
  write_adapter(directory, config, plain_tensors());
  const LoraSource source(tiny_model(), directory.path());
  ASSERT_TRUE(source.config().dmc.has_value());
  EXPECT_EQ(source.config().dmc->target_cr, 8.0);
  EXPECT_EQ(source.config().dmc->window, 12);
}

struct Refused {
  const char* name;
  json change;                                            // of the config
  std::function<void(std::vector<TestTensor>&)> tensors;  // may be empty
  std::string message;
};

std::vector<Refused> refused_configs() {
  return {
      {"dora", {{"use_dora", true}}, {}, "use_dora is true"},
      {"bias", {{"bias", "all"}}, {}, "bias is \"all\""},
      {"lora_bias", {{"lora_bias", true}}, {}, "lora_bias is true"},
      {"fan_in_fan_out", {{"fan_in_fan_out", true}}, {}, "fan_in_fan_out is true"},
      {"another_kind", {{"peft_type", "IA3"}}, {}, "peft_type is \"IA3\""},
      {"pissa", {{"init_lora_weights", "pissa_niter_4"}}, {}, "changes the base weights"},
      {"replicated_layers", {{"layer_replication", {{0, 1}}}}, {}, "layer_replication is set"},
      {"rank_is_text", {{"r", "3"}}, {}, "r must be an integer"},
      {"rank_is_zero", {{"r", 0}}, {}, "r must be in 1.."},
      {"another_rank", {{"r", 4}}, {}, "lora_A is [3, 8], rank 4 of a [24, 8] layer needs [4, 8]"},
      {"pattern_is_a_regex", {{"rank_pattern", {{".*q_proj", 3}}}}, {}, "regular expression"},
      {"alpha_is_text", {{"lora_alpha", "x"}}, {}, "lora_alpha must be a number"},
      {"target_without_tensors", {{"target_modules", {"q_proj", "down_proj", "c_attn"}}}, {}, "names \"c_attn\""},
      {"tensor_without_target", {{"target_modules", {"q_proj"}}}, {}, "is not among target_modules"},
      {"dmc_window", {{"dmc", {{"window", -2}}}}, {}, "window must be in"},
  };
}

const json kAnyTarget = {{"target_modules", "all-linear"}};

std::vector<Refused> refused_pairs() {
  using Tensors = std::vector<TestTensor>;
  return {
      {"no_prefix", kAnyTarget, [](Tensors& t) { t[0].name = "layers.0.lora_A.weight"; },
       "does not begin with base_model.model."},
      {"half_missing", kAnyTarget, [](Tensors& t) { t.erase(t.begin() + 1); }, "lora_B is missing"},
      {"unknown_layer", kAnyTarget, [](Tensors& t) { add_pair(t, "model.layers.2.mlp.up_proj", 3, 12, 8); },
       "no linear layer"},
      {"norm", kAnyTarget, [](Tensors& t) { add_pair(t, "model.norm", 3, 1, 8); }, "no linear layer"},
      {"embedding_pair", kAnyTarget, [](Tensors& t) { add_pair(t, "model.embed_tokens", 3, 10, 8); },
       "no linear layer"},
      {"embedding", kAnyTarget,
       [](Tensors& t) {
         t.push_back(
             f32_tensor("base_model.model.model.embed_tokens.lora_embedding_A", {3, 10}, std::vector<float>(30)));
       },
       "LoRA of embeddings"},
      {"a_misshaped", kAnyTarget,
       [](Tensors& t) {
         t[0].shape = {8, 3};
       },
       "lora_A is [8, 3]"},
      {"b_misshaped", kAnyTarget,
       [](Tensors& t) {
         t[1].shape = {3, 24};
       },
       "lora_B is [3, 24]"},
      {"integers", kAnyTarget, [](Tensors& t) { t[1].dtype = "I32"; }, "no float matrix"},
  };
}

std::vector<Refused> refused_replacements() {
  using Tensors = std::vector<TestTensor>;
  return {
      {"unlisted_replacement", kAnyTarget,
       [](Tensors& t) {
         t.push_back(f32_tensor("base_model.model.lm_head.weight", {10, 8}, std::vector<float>(80)));
       },
       "neither a LoRA matrix nor among modules_to_save"},
      {"replacement_misshaped",
       {{"modules_to_save", {"lm_head"}}},
       [](Tensors& t) {
         t.push_back(f32_tensor("base_model.model.lm_head.weight", {11, 8}, std::vector<float>(88)));
       },
       "is [11, 8], the model's [10, 8]"},
      {"replacement_unknown",
       {{"modules_to_save", {"score"}}},
       [](Tensors& t) {
         t.push_back(f32_tensor("base_model.model.score.weight", {2, 8}, std::vector<float>(16)));
       },
       "no tensor \"score.weight\""},
      {"twice", kAnyTarget,
       [](Tensors& t) {
         t.push_back(t[0]);
         t.back().name = "base_model.model." + std::string(kQuery) + ".lora_A.default.weight";
       },
       "stands twice"},
      {"nothing", kAnyTarget, [](Tensors& t) { t.clear(); }, "no tensors"},
  };
}

class LoraRefused : public ::testing::TestWithParam<Refused> {};

TEST_P(LoraRefused, NamesTheField) {
  const TempDir directory;
  json config = plain_config();
  config.update(GetParam().change);
  std::vector<TestTensor> tensors = plain_tensors();
  if (GetParam().tensors) GetParam().tensors(tensors);
  write_adapter(directory, config, tensors);
  const std::string message = error_of([&] { LoraSource{tiny_model(), directory.path()}; });
  EXPECT_NE(message.find("adapter_"), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

const auto kNameOf = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Configs, LoraRefused, ::testing::ValuesIn(refused_configs()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Pairs, LoraRefused, ::testing::ValuesIn(refused_pairs()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Replacements, LoraRefused, ::testing::ValuesIn(refused_replacements()), kNameOf);

TEST(LoraSource, RefusesDirectoriesWithoutAnAdapter) {
  const TempDir directory;
  const auto refusal = [&](const std::string& path) { return error_of([&] { LoraSource{tiny_model(), path}; }); };
  EXPECT_NE(refusal(directory.path() + "/none").find("no such adapter directory"), std::string::npos);
  EXPECT_NE(refusal(directory.path()).find("no adapter_config.json"), std::string::npos);
  directory.write("adapter_config.json", plain_config().dump());
  EXPECT_NE(refusal(directory.path()).find("adapter_model.safetensors: cannot open"), std::string::npos);
  directory.write("adapter_model.bin", "x");
  EXPECT_NE(refusal(directory.path()).find("adapter_model.bin, which is not read"), std::string::npos);
}

}  // namespace
}  // namespace accrete::worker
