#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "launch/profile/heat_map.h"
#include "launch/profile/measure.h"
#include "launch/profile/slot_profile.h"

namespace accrete::launch {
namespace {

using nlohmann::json;

// Two layers of two KV heads at two lengths.
SlotProfile small_profile() {
  SlotProfile p;
  p.provenance = {.model = "m<1>", .device = "cpu", .dtype = "float32", .shape = "TP 1 x PP 1, 1 replica", .synthetic_cr = 4.0};
  p.model_hash = "abc";
  p.text = "text.txt";
  p.windows = 3;
  p.layers = p.kv_heads = 2;
  p.lengths = {10, 20};
  p.mean_slots = {10, 5, 2, 4, 20, 6, 3, 4};
  p.most_slots = {10, 6, 3, 5, 20, 7, 4, 4};
  return p;
}

std::string error_of(const json& object) {
  try {
    profile_from(object);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(SlotProfile, ExpectationsBetweenAndBeyondTheMeasured) {
  const SlotProfile p = small_profile();
  EXPECT_DOUBLE_EQ(expected_slots(p, 1, 10), 5.0);
  EXPECT_DOUBLE_EQ(expected_slots(p, 1, 5), 2.5);
  EXPECT_DOUBLE_EQ(expected_slots(p, 1, 15), 5.5);
  EXPECT_DOUBLE_EQ(expected_slots(p, 1, 40), 12.0);
  EXPECT_DOUBLE_EQ(expected_ratio(p, 20), 80.0 / 33.0);
}

TEST(SlotProfile, LengthsArePowersOfTwoAndEqualSteps) {
  EXPECT_EQ(profile_lengths(100, 4), (std::vector<int64_t>{16, 25, 32, 50, 64, 75, 100}));
  EXPECT_EQ(profile_lengths(64, 1), (std::vector<int64_t>{16, 32, 64}));
  EXPECT_EQ(profile_lengths(1, 8), (std::vector<int64_t>{1}));
}

TEST(SlotProfile, JsonComesBackTheSame) {
  const json object = to_json(small_profile());
  EXPECT_EQ(object["mean_slots"][1][0][1], 6.0);
  EXPECT_EQ(to_json(profile_from(object)), object);
}

TEST(SlotProfile, WrongFieldsAreNamed) {
  const json good = to_json(small_profile());
  EXPECT_NE(error_of(json::array()).find("no slot profile"), std::string::npos);
  for (const auto& [field, value] : good.items()) {
    json without = good;
    without.erase(field);
    EXPECT_NE(error_of(without).find(field == "format" ? "no slot profile" : field), std::string::npos) << field;
    json other = good;
    other[field] = field == "text" || field == "model_hash" ? json(1) : json("x");
    EXPECT_NE(error_of(other), "") << field;
  }
  const auto with = [&](const char* pointer, json value) {
    json object = good;
    object[json::json_pointer(pointer)] = std::move(value);
    return error_of(object);
  };
  EXPECT_NE(with("/version", 2).find("version is 2"), std::string::npos);
  EXPECT_NE(with("/lengths", {20, 10}).find("ascend"), std::string::npos);
  EXPECT_NE(with("/lengths/1", -3).find("lengths"), std::string::npos);
  EXPECT_NE(with("/layers", int64_t{1} << 40).find("layers"), std::string::npos);
  EXPECT_NE(with("/mean_slots/1/0/1", 21).find("mean_slots[1][0]"), std::string::npos);
  EXPECT_NE(with("/mean_slots/1/0/1", 0).find("mean_slots[1][0]"), std::string::npos);
  EXPECT_NE(with("/most_slots/0/1", {1}).find("most_slots[0][1]"), std::string::npos);
  EXPECT_NE(with("/provenance/dtype", 5).find("dtype"), std::string::npos);
}

TEST(SlotProfile, FilesAreNamed) {
  const std::string path = ::testing::TempDir() + "accrete_profile_test." + std::to_string(getpid());
  const auto error = [&] {
    try {
      read_profile(path);
    } catch (const std::exception& caught) {
      return std::string(caught.what());
    }
    return std::string();
  };
  EXPECT_NE(error().find(path), std::string::npos);
  std::ofstream(path) << "{";
  EXPECT_NE(error().find("not JSON"), std::string::npos);
  std::ofstream(path) << "{}";
  EXPECT_NE(error().find(path), std::string::npos);
  std::ofstream(path) << to_json(small_profile());
  EXPECT_EQ(error(), "");
  std::remove(path.c_str());
}

TEST(SlotProfile, TextSaysLengthsLayersAndThatDecisionsAreSynthetic) {
  const std::string text = to_text(small_profile(), 0);
  EXPECT_NE(text.find("synthetic decisions"), std::string::npos);
  EXPECT_NE(text.find("After 20 tokens\n"), std::string::npos);
  EXPECT_NE(text.find("█▃"), std::string::npos);
  EXPECT_NE(to_text(small_profile(), 15).find("interpolated"), std::string::npos);
  EXPECT_NE(to_text(small_profile(), 21).find("extrapolated"), std::string::npos);
}

TEST(HeatMap, HasACellForEachHead) {
  const std::string svg = heat_map_svg(small_profile());
  size_t cells = 0;
  for (size_t at = svg.find("<title>"); at != std::string::npos; at = svg.find("<title>", at + 1)) ++cells;
  EXPECT_EQ(cells, 4u);
  EXPECT_NE(svg.find("m&lt;1&gt;"), std::string::npos);
  EXPECT_NE(svg.find("Synthetic decisions"), std::string::npos);
  EXPECT_NE(svg.find("layer 1, KV head 0: 3.0 slots of 20 tokens, ratio 6.67, at most 4 slots"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(HeatMap, HeadsThatAreAllTheSameHaveAColourToo) {
  SlotProfile p = small_profile();
  p.mean_slots.assign(8, 10.0);
  const std::string svg = heat_map_svg(p);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(svg.find(heat_colour(0.0)), std::string::npos);
}

TEST(HeatColour, RisesInLightness) {
  double before = -1.0;
  for (int i = 0; i <= 20; ++i) {
    const std::string colour = heat_colour(i / 20.0);
    const auto part = [&](size_t at) { return static_cast<double>(std::stoi(colour.substr(at, 2), nullptr, 16)); };
    const double lightness = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
    EXPECT_GT(lightness, before);
    before = lightness;
  }
  EXPECT_EQ(heat_colour(-1.0), heat_colour(0.0));
  EXPECT_EQ(heat_colour(2.0), heat_colour(1.0));
}

SlotProfile measured(int tensor, int pipeline, double synthetic_cr) {
  worker::EngineOptions options;
  options.model = "tiny";
  options.load_format = "dummy";
  options.device = "cpu";
  options.dtype = "float32";
  options.topology = {.tensor = tensor, .pipeline = pipeline};
  options.dmc_synthetic_cr = synthetic_cr;
  options.max_model_len = 128;
  options.max_num_batched_tokens = 64;
  options.kv_cache_memory_bytes = 8 << 20;
  options.cpu_threads = 1;
  OfflineEngine engine(options);
  ProfileText text{.name = "numbers", .tokens = std::vector<int32_t>(150), .longest = 70, .points = 3};
  std::iota(text.tokens.begin(), text.tokens.end(), 1);
  return measure_profile(engine, text);
}

TEST(MeasureProfile, WithoutCompressionEveryHeadHoldsEveryToken) {
  const SlotProfile p = measured(1, 1, 0.0);
  EXPECT_EQ(p.windows, 2);
  EXPECT_EQ(p.lengths, (std::vector<int64_t>{16, 23, 32, 46, 64, 70}));
  for (size_t i = 0; i < p.mean_slots.size(); ++i) EXPECT_EQ(p.mean_slots[i], static_cast<double>(p.lengths[i / static_cast<size_t>(p.heads())]));
}

TEST(MeasureProfile, ShardsAndStagesCountTheSameSlots) {
  const SlotProfile one = measured(1, 1, 4.0);
  EXPECT_GT(std::set<double>(one.mean_slots.begin(), one.mean_slots.end()).size(), 3u) << "heads and lengths should differ";
  for (size_t i = static_cast<size_t>(one.heads()); i < one.mean_slots.size(); ++i) {
    EXPECT_GE(one.mean_slots[i], one.mean_slots[i - static_cast<size_t>(one.heads())]) << "a longer stretch of the same window holds no fewer slots";
    EXPECT_GE(one.most_slots[i], one.mean_slots[i]);
  }
  for (const auto& [tensor, pipeline] : {std::pair(2, 1), std::pair(1, 2), std::pair(2, 2)}) {
    const SlotProfile cut = measured(tensor, pipeline, 4.0);
    EXPECT_EQ(cut.mean_slots, one.mean_slots) << tensor << " x " << pipeline;
    EXPECT_EQ(cut.most_slots, one.most_slots) << tensor << " x " << pipeline;
  }
}

}  // namespace
}  // namespace accrete::launch
