#include "worker/model/hf_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/worker/model/model_files.h"
#include "worker/model/network_tensors.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

constexpr const char* kQuery = "model.layers.1.self_attn.q_proj.weight";

std::string refusal(const TempDir& directory) {
  return error_of([&] { HfSource{directory.path()}; });
}

// Writes the tensors as two shards and an index.
void write_shards(const TempDir& directory, const std::vector<TestTensor>& tensors) {
  std::vector<TestTensor> parts[2];
  nlohmann::json index;
  for (size_t i = 0; i < tensors.size(); ++i) {
    parts[i % 2].push_back(tensors[i]);
    index["weight_map"][tensors[i].name] =
        i % 2 == 0 ? "model-00001-of-00002.safetensors" : "model-00002-of-00002.safetensors";
  }
  directory.write("config.json", kTinyConfig);
  directory.write("model-00001-of-00002.safetensors", safetensors_file(parts[0]));
  directory.write("model-00002-of-00002.safetensors", safetensors_file(parts[1]));
  directory.write("model.safetensors.index.json", index.dump());
}

TEST(HfSource, ReadsEveryTensor) {
  for (const std::string dtype : {"F32", "BF16"}) {
    const TempDir directory;
    directory.write("config.json", kTinyConfig);
    directory.write("model.safetensors", safetensors_file(tiny_tensors(dtype)));
    const HfSource source(directory.path());
    visit_tensors(source.config(), [&](const std::string& name, int64_t rows, int64_t columns) {
      EXPECT_EQ(source.shape(name), std::pair(rows, columns));
      EXPECT_EQ(read_all(source, name), tiny_values(name, rows, columns)) << name;
    });
    EXPECT_EQ(source.describe(), "safetensors " + dtype + ", 21 tensors, " + (dtype == "F32" ? "7.7 kB" : "3.9 kB"));
  }
}

TEST(HfSource, ReadsAnySlice) {
  const TempDir directory;
  write_tiny_model(directory);
  const HfSource source(directory.path());
  const Slice slice{5, 11, 3, 7};
  std::vector<float> wide(24);
  std::vector<bf16> narrow(24);
  source.read(kQuery, slice, DType::f32, wide.data());
  source.read(kQuery, slice, DType::bf16, narrow.data());
  for (int64_t i = 0; i < 24; ++i) {
    const float expected = tiny_value(kQuery, 5 + i / 4, 3 + i % 4);
    EXPECT_EQ(wide[static_cast<size_t>(i)], expected);
    EXPECT_EQ(static_cast<float>(narrow[static_cast<size_t>(i)]), expected);
  }
  source.read(kQuery, {3, 3, 0, 8}, DType::f32, nullptr);  // nothing to do
}

// Owned by no thread: the loader reads with several.
TEST(HfSource, ReadsFromSeveralThreads) {
  const TempDir directory;
  write_tiny_model(directory);
  const HfSource source(directory.path());
  std::array<bool, 4> equal{};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < equal.size(); ++i) {
    threads.emplace_back([&, i] {
      equal[i] = true;
      for (int round = 0; round < 50; ++round)
        equal[i] = equal[i] && read_all(source, kQuery) == tiny_values(kQuery, 24, 8);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, (std::array<bool, 4>{true, true, true, true}));
}

TEST(HfSource, ReadsShards) {
  const TempDir directory;
  write_shards(directory, tiny_tensors("F32"));
  const HfSource source(directory.path());
  visit_tensors(source.config(), [&](const std::string& name, int64_t rows, int64_t columns) {
    EXPECT_EQ(read_all(source, name), tiny_values(name, rows, columns)) << name;
  });
  EXPECT_GT(source.bytes_on_disk(), 7712);
}

TEST(HfSource, IgnoresBuffersOfOldFiles) {
  const TempDir directory;
  std::vector<TestTensor> tensors = tiny_tensors("F32");
  tensors.push_back({"model.position_ids", "I64", {2}, std::string(16, '\0')});
  tensors.push_back(f32_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", {3}, {1, 2, 3}));
  directory.write("config.json", kTinyConfig);
  directory.write("model.safetensors", safetensors_file(tensors));
  EXPECT_FALSE(HfSource(directory.path()).has("model.position_ids"));
}

TEST(HfSource, TiedEmbeddingsHaveNoOutputOfTheirOwn) {
  const TempDir directory;
  std::string config = kTinyConfig;
  config.insert(1, "\"tie_word_embeddings\": true,");
  directory.write("config.json", config);
  directory.write("model.safetensors", safetensors_file(tiny_tensors("F32")));
  const HfSource with_output(directory.path());
  EXPECT_TRUE(with_output.config().tied_embeddings);
  EXPECT_FALSE(with_output.has("lm_head.weight"));
  std::vector<TestTensor> tensors = tiny_tensors("F32");
  tensors.pop_back();
  directory.write("model.safetensors", safetensors_file(tensors));
  EXPECT_FALSE(HfSource(directory.path()).has("lm_head.weight"));
}

TEST(HfSource, HashIsOfTheModelAndNotOfItsPlace) {
  const TempDir one, two, other;
  write_tiny_model(one);
  write_tiny_model(two);
  std::vector<TestTensor> tensors = tiny_tensors("BF16");
  tensors[3].data[tensors[3].data.size() / 2] ^= 1;
  other.write("config.json", kTinyConfig);
  other.write("model.safetensors", safetensors_file(tensors));
  EXPECT_EQ(HfSource(one.path()).hash(), HfSource(two.path()).hash());
  EXPECT_NE(HfSource(one.path()).hash(), HfSource(other.path()).hash());
}

TEST(HfSource, UnknownTensorsAreErrors) {
  const TempDir directory;
  write_tiny_model(directory);
  const HfSource source(directory.path());
  EXPECT_FALSE(source.has("lm_head.bias"));
  EXPECT_NE(error_of([&] { source.shape("lm_head.bias"); }).find("no tensor \"lm_head.bias\""), std::string::npos);
  float value;
  error_of([&] { source.read("lm_head.bias", {0, 1, 0, 1}, DType::f32, &value); });
}

TEST(HfSource, RefusesDirectoriesWithoutAModel) {
  const TempDir directory;
  EXPECT_NE(refusal(directory).find("no config.json"), std::string::npos);
  directory.write("config.json", kTinyConfig);
  EXPECT_NE(refusal(directory).find("neither model.safetensors nor"), std::string::npos);
  directory.write("pytorch_model.bin", "x");
  EXPECT_NE(refusal(directory).find("pytorch_model.bin"), std::string::npos);
  directory.write("model.safetensors", "");
  EXPECT_NE(refusal(directory).find("the file is empty"), std::string::npos);
  directory.write("model.safetensors", "xyz");
  EXPECT_NE(refusal(directory).find("too few"), std::string::npos);
  directory.write("config.json", "{");
  EXPECT_NE(refusal(directory).find("config.json: not valid JSON"), std::string::npos);
}

struct Unfit {
  const char* name;
  std::function<void(std::vector<TestTensor>&)> change;
  std::string message;
};

TestTensor& named(std::vector<TestTensor>& tensors, std::string_view name) {
  return *std::find_if(tensors.begin(), tensors.end(), [&](const TestTensor& tensor) { return tensor.name == name; });
}

std::vector<Unfit> unfit_models() {
  using Tensors = std::vector<TestTensor>;
  return {
      {"missing", [](Tensors& t) { t.pop_back(); }, "tensor lm_head.weight is missing"},
      {"missing_in_a_layer", [](Tensors& t) { t.erase(t.begin() + 5); }, "is missing"},
      {"transposed",
       [](Tensors& t) {
         named(t, kQuery).shape = {8, 24};
       },
       "q_proj.weight is [8, 24], the config needs [24, 8]"},
      {"flat", [](Tensors& t) { named(t, kQuery).shape = {192}; }, "is [1, 192]"},
      {"cubic",
       [](Tensors& t) {
         named(t, kQuery).shape = {3, 8, 8};
       },
       "is missing"},
      {"integers", [](Tensors& t) { named(t, kQuery).dtype = "I32"; }, "has dtype \"I32\""},
      {"eight_bits",
       [](Tensors& t) {
         named(t, kQuery) = {kQuery, "F8_E4M3", {24, 8}, std::string(192, 'x')};
       },
       "F8_E4M3"},
      {"biased",
       [](Tensors& t) {
         t.push_back(f32_tensor("model.layers.0.self_attn.q_proj.bias", {24}, std::vector<float>(24)));
       },
       "layers with biases"},
  };
}

class HfUnfit : public ::testing::TestWithParam<Unfit> {};

TEST_P(HfUnfit, IsRefusedWithItsReason) {
  const TempDir directory;
  std::vector<TestTensor> tensors = tiny_tensors("F32");
  GetParam().change(tensors);
  directory.write("config.json", kTinyConfig);
  directory.write("model.safetensors", safetensors_file(tensors));
  const std::string message = refusal(directory);
  EXPECT_NE(message.find(directory.path()), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(Models, HfUnfit, ::testing::ValuesIn(unfit_models()),
                         [](const auto& info) { return std::string(info.param.name); });

struct BadIndex {
  const char* name;
  const char* index;
  std::string message;
};

class HfIndex : public ::testing::TestWithParam<BadIndex> {};

TEST_P(HfIndex, IsRefusedWithItsReason) {
  const TempDir directory;
  write_shards(directory, tiny_tensors("F32"));
  directory.write("model.safetensors.index.json", GetParam().index);
  const std::string message = refusal(directory);
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
}

constexpr const char* kFirst = R"({"weight_map": {"x": "model-00001-of-00002.safetensors"}})";
INSTANTIATE_TEST_SUITE_P(
    Indices, HfIndex,
    ::testing::Values(
        BadIndex{"no_map", "{}", "weight_map is missing"},
        BadIndex{"map_is_a_list", R"({"weight_map": []})", "weight_map"},
        BadIndex{"empty_map", R"({"weight_map": {}})", "weight_map is empty"},
        BadIndex{"not_json", "weights", "not valid JSON"},
        BadIndex{"file_is_a_number", R"({"weight_map": {"x": 3}})", "\"x\" must be a string"},
        BadIndex{"file_is_empty", R"({"weight_map": {"x": ""}})", "no plain file name"},
        BadIndex{"file_is_above", R"({"weight_map": {"x": "../secret.safetensors"}})", "no plain file name"},
        BadIndex{"file_is_dots", R"({"weight_map": {"x": ".."}})", "no plain file name"},
        BadIndex{"file_is_absolute", R"({"weight_map": {"x": "/etc/passwd"}})", "no plain file name"},
        BadIndex{"file_holds_a_zero", R"({"weight_map": {"x": "a\u0000b"}})", "no plain file name"},
        BadIndex{"file_missing", R"({"weight_map": {"x": "nowhere.safetensors"}})", "nowhere.safetensors: cannot open"},
        BadIndex{"tensor_not_in_its_file", kFirst, "tensor \"x\", which"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(HfIndexDuplicates, ATensorInTwoFilesIsRefused) {
  const TempDir directory;
  std::vector<TestTensor> tensors = tiny_tensors("F32");
  write_shards(directory, tensors);
  directory.write("model-00002-of-00002.safetensors", safetensors_file(tensors));
  EXPECT_NE(refusal(directory).find("stands in another file too"), std::string::npos);
}

}  // namespace
}  // namespace accrete::worker
