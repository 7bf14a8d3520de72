#include "worker/model/model_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/worker/model/model_files.h"
#include "worker/model/hf_config.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files
using nlohmann::json;

ModelConfig parse(const json& value) {
  return parse_hf_config(JsonObject(value, "config.json"));
}

// The tiny config with some fields changed; a field set to null is taken out.
json changed(const json& changes) {
  json value = json::parse(kTinyConfig);
  for (const auto& [key, change] : changes.items()) {
    if (change.is_null())
      value.erase(key);
    else
      value[key] = change;
  }
  return value;
}

TEST(HfConfig, ReadsEveryField) {
  const ModelConfig config = parse(changed({{"tie_word_embeddings", true},
                                            {"dmc", {{"target_cr", 4.0}, {"window", 0}, {"offset", 4.5}}},
                                            {"sliding_window", nullptr}}));
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.hidden, 8);
  EXPECT_EQ(config.mlp, 12);
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.query_heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_size, 6);
  EXPECT_EQ(config.vocab, 10);
  EXPECT_EQ(config.max_position, 64);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 500.0);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2, 3}));
  ASSERT_TRUE(config.dmc.has_value());
  EXPECT_EQ(config.dmc->target_cr, 4.0);
  EXPECT_EQ(config.dmc->window, 0);
  EXPECT_EQ(config.dmc->offset, 4.5);
}

TEST(HfConfig, FillsInDefaultsAsTransformers) {
  const ModelConfig config = parse(changed({{"head_dim", nullptr},
                                            {"num_key_value_heads", nullptr},
                                            {"rope_theta", nullptr},
                                            {"rms_norm_eps", nullptr},
                                            {"max_position_embeddings", nullptr},
                                            {"bos_token_id", nullptr},
                                            {"eos_token_id", nullptr}}));
  EXPECT_EQ(config.head_size, 2);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_EQ(config.max_position, 2048);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{2}));
  EXPECT_FALSE(config.dmc.has_value());
  EXPECT_EQ(parse(changed({{"eos_token_id", 7}})).eos_token_ids, (std::vector<int32_t>{7}));
}

TEST(HfConfig, TakesMistralWithoutASlidingWindow) {
  EXPECT_EQ(parse(changed({{"architectures", {"MistralForCausalLM"}}})).architecture, "MistralForCausalLM");
  json value = changed({{"architectures", nullptr}, {"model_type", "mistral"}});
  value["sliding_window"] = nullptr;
  EXPECT_EQ(parse(value).architecture, "MistralForCausalLM");
  EXPECT_NO_THROW(parse(changed({{"sliding_window", 64}})));  // as long as the context: no window
}

TEST(HfConfig, ReadsRopeInBothForms) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  json block = scaling;
  block["rope_theta"] = 500000.0;
  const ModelConfig old_form = parse(changed({{"rope_theta", 500000.0}, {"rope_scaling", scaling}}));
  const ModelConfig new_form = parse(changed({{"rope_theta", nullptr}, {"rope_parameters", block}}));
  for (const ModelConfig& config : {old_form, new_form}) {
    EXPECT_EQ(config.rope_theta, 500000.0);
    ASSERT_TRUE(config.rope_scaling.has_value());
    EXPECT_EQ(config.rope_scaling->kind, RopeScaling::Kind::llama3);
    EXPECT_EQ(config.rope_scaling->factor, 8.0);
    EXPECT_EQ(config.rope_scaling->original_max_position, 8192);
  }
  const ModelConfig plain = parse(changed({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 9.0}}}}));
  EXPECT_FALSE(plain.rope_scaling.has_value());
  EXPECT_EQ(plain.rope_theta, 9.0);
  EXPECT_EQ(parse(changed({{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}})).rope_scaling->kind,
            RopeScaling::Kind::linear);
}

TEST(HfConfig, GenerationConfigTakesPrecedence) {
  ModelConfig config = tiny_config();
  const JsonObject generation({{"eos_token_id", {4, 5}}, {"temperature", 0.6}, {"top_k", 40}, {"bos_token_id", 9}},
                              "g.json");
  const rpc::GenerationDefaults defaults = parse_generation_config(generation, config);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(config.bos_token_id, 9);
  EXPECT_FLOAT_EQ(defaults.temperature(), 0.6f);
  EXPECT_EQ(defaults.top_k(), 40);
  EXPECT_FALSE(defaults.has_top_p());
  EXPECT_FALSE(defaults.has_repetition_penalty());
}

struct Refused {
  const char* name;
  json change;
  std::string message;
};

std::vector<Refused> refused_configs() {
  return {
      {"no_architecture", {{"architectures", nullptr}}, "architectures is missing"},
      {"another_architecture", {{"architectures", {"GPT2LMHeadModel"}}}, "\"GPT2LMHeadModel\""},
      {"hidden_missing", {{"hidden_size", nullptr}}, "hidden_size is missing"},
      {"hidden_is_text", {{"hidden_size", "8"}}, "hidden_size must be an integer, not string"},
      {"hidden_is_fractional", {{"hidden_size", 8.5}}, "hidden_size must be an integer"},
      {"hidden_is_zero", {{"hidden_size", 0}}, "hidden_size must be in 1.."},
      {"hidden_is_negative", {{"hidden_size", -8}}, "hidden_size must be in 1.."},
      {"hidden_is_huge", {{"hidden_size", 1e18}}, "hidden_size must be an integer"},
      {"layers_are_huge", {{"num_hidden_layers", 1000000000}}, "num_hidden_layers must be in 1.."},
      {"vocab_beyond_63_bits", {{"vocab_size", ~uint64_t{0}}}, "vocab_size is too large"},
      {"no_query_heads", {{"num_attention_heads", 0}}, "num_attention_heads must be in 1.."},
      {"heads_do_not_divide", {{"num_key_value_heads", 3}}, "no multiple of num_key_value_heads 3"},
      {"odd_head", {{"head_dim", 7}}, "head_dim must be even"},
      {"head_unknown", {{"head_dim", nullptr}, {"num_attention_heads", 3}}, "no multiple of num_attention_heads"},
      {"head_unknown_without_heads", {{"head_dim", nullptr}, {"num_attention_heads", 0}}, "num_attention_heads 0"},
      {"eps_is_zero", {{"rms_norm_eps", 0.0}}, "rms_norm_eps"},
      {"theta_is_negative", {{"rope_theta", -1.0}}, "rope_theta must be positive"},
      {"attention_bias", {{"attention_bias", true}}, "attention_bias is true"},
      {"mlp_bias", {{"mlp_bias", true}}, "mlp_bias is true"},
      {"interleaved_rope", {{"rope_interleaved", true}}, "rope_interleaved is true"},
      {"gelu", {{"hidden_act", "gelu"}}, "hidden_act is \"gelu\""},
      {"quantized", {{"quantization_config", {{"quant_method", "gptq"}}}}, "\"gptq\""},
      {"sliding_window", {{"sliding_window", 16}}, "sliding_window is 16"},
      {"partial_rotary", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor must be 1"},
      {"yarn", {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}}}, "rope_type is \"yarn\""},
      {"scaling_without_factor", {{"rope_scaling", {{"rope_type", "linear"}}}}, "factor is missing"},
      {"scaling_by_zero", {{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0.0}}}}, "factor must be positive"},
      {"scaling_is_text", {{"rope_scaling", "linear"}}, "rope_scaling: must be a JSON object"},
      {"frequencies_reversed",
       {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}}}},
       "low_freq_factor < high_freq_factor"},
      {"eos_is_text", {{"eos_token_id", "</s>"}}, "eos_token_id must be an integer"},
      {"eos_is_negative", {{"eos_token_id", {2, -3}}}, "eos_token_id is no token id: -3"},
      {"tied_is_text", {{"tie_word_embeddings", "yes"}}, "tie_word_embeddings must be true or false"},
      {"dmc_is_a_number", {{"dmc", 4}}, "dmc: must be a JSON object"},
      {"dmc_ratio_below_one", {{"dmc", {{"target_cr", 0.5}}}}, "target_cr must be at least 1"},
      {"dmc_window_negative", {{"dmc", {{"window", -1}}}}, "window must be in 0.."},
  };
}

class HfConfigRefused : public ::testing::TestWithParam<Refused> {};

TEST_P(HfConfigRefused, NamesTheField) {
  const std::string message = error_of([&] { parse(changed(GetParam().change)); });
  EXPECT_EQ(message.find("config.json: "), 0u) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Configs, HfConfigRefused, ::testing::ValuesIn(refused_configs()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(JsonFile, RefusesWhatIsNoObject) {
  EXPECT_NE(error_of([] { parse_json("{", "c.json"); }).find("c.json: not valid JSON"), std::string::npos);
  EXPECT_NE(error_of([] { parse_json(std::string(1000, '['), "c.json"); }).find("nested deeper"), std::string::npos);
  EXPECT_NE(error_of([] { JsonObject(json::array(), "c.json"); }).find("must be a JSON object"), std::string::npos);
  const TempDir directory;
  const std::string path = directory.write("large.json", std::string(100, ' '));
  EXPECT_NE(error_of([&] { JsonObject::read(path, 99); }).find("at most 99"), std::string::npos);
}

// Llama 3.2 1B: theta 500000, head size 64, factor 32. The expected values come from the published formula in fp64.
TEST(RopeFrequencies, FollowLlama3Scaling) {
  ModelConfig config = tiny_config();
  config.head_size = 64;
  config.rope_theta = 500000.0;
  config.rope_scaling = RopeScaling{RopeScaling::Kind::llama3, 32.0, 1.0, 4.0, 8192};
  const std::vector<double> frequencies = rope_frequencies(config);
  ASSERT_EQ(frequencies.size(), 32u);
  const std::pair<size_t, double> expected[] = {{0, 1.0},
                                                {10, 0.016560440080994446},
                                                {14, 0.0032114459947525913},
                                                {15, 0.001290547928209264},
                                                {16, 0.00042955679655936815},
                                                {17, 9.70828780262767e-05},
                                                {18, 1.9461638184831125e-05},
                                                {31, 9.418306725434909e-08}};
  for (const auto& [i, value] : expected) EXPECT_NEAR(frequencies[i], value, 1e-12 * value + 1e-18) << i;
}

TEST(RopeFrequencies, ScaleLinearlyAndByFactors) {
  ModelConfig config = tiny_config();
  EXPECT_DOUBLE_EQ(rope_frequencies(config)[1], std::pow(500.0, -2.0 / 6.0));
  config.rope_scaling = RopeScaling{RopeScaling::Kind::linear, 4.0, 1.0, 4.0, 64};
  EXPECT_DOUBLE_EQ(rope_frequencies(config)[1], std::pow(500.0, -2.0 / 6.0) / 4.0);
  config.rope_factors = {1.0, 3.0, 1.0};
  EXPECT_DOUBLE_EQ(rope_frequencies(config)[1], std::pow(500.0, -2.0 / 6.0) / 12.0);
  config.rope_factors = {1.0};
  EXPECT_NE(error_of([&] { validate(config, "c"); }).find("rope factors"), std::string::npos);
}

}  // namespace
}  // namespace accrete::worker
