// A SlotProfile as JSON and back (docs/profile.md).
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "launch/profile/slot_profile.h"

namespace accrete::launch {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "accrete slot profile";
constexpr int64_t kMostSize = 1 << 20;  // of layers, heads, lengths

[[noreturn]] void wrong(const std::string& field, const std::string& what) { throw std::runtime_error(fmt::format("{} {}", field, what)); }

const json& member(const json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end()) wrong(field, "is missing");
  return *found;
}

int64_t size_member(const json& object, const char* field) {
  const json& value = member(object, field);
  if (!value.is_number_integer() || value < 1 || value > kMostSize) wrong(field, fmt::format("must be a whole number from 1 to {}", kMostSize));
  return value.get<int64_t>();
}

std::string text_member(const json& object, const char* field) {
  const json& value = member(object, field);
  if (!value.is_string()) wrong(field, "must be text");
  return value.get<std::string>();
}

double number_member(const json& object, const char* field) {
  const json& value = member(object, field);
  if (!value.is_number()) wrong(field, "must be a number");
  return value.get<double>();
}

Provenance provenance_from(const json& object) {
  Provenance p;
  p.model = text_member(object, "model");
  p.device = text_member(object, "device");
  p.dtype = text_member(object, "dtype");
  p.shape = text_member(object, "shape");
  p.target_cr = number_member(object, "target_cr");
  p.synthetic_cr = number_member(object, "synthetic_cr");
  const json& dummy = member(object, "dummy_weights");
  if (!dummy.is_boolean()) wrong("dummy_weights", "must be true or false");
  p.dummy_weights = dummy.get<bool>();
  return p;
}

json nested(const SlotProfile& p, const auto& values) {
  json points = json::array();
  size_t next = 0;
  for (size_t point = 0; point < p.lengths.size(); ++point) {
    json layers = json::array();
    for (int64_t layer = 0; layer < p.layers; ++layer) {
      json heads = json::array();
      for (int64_t head = 0; head < p.kv_heads; ++head) heads.push_back(values[next++]);
      layers.push_back(std::move(heads));
    }
    points.push_back(std::move(layers));
  }
  return points;
}

void expect_list(const json& value, const std::string& field, int64_t size) {
  if (!value.is_array() || static_cast<int64_t>(value.size()) != size) wrong(field, fmt::format("must be a list of {}", size));
}

// One layer's heads: numbers above 0, none more than the tokens there were.
void add_heads(const json& heads, const std::string& where, double tokens, std::vector<double>& values) {
  for (const json& value : heads) {
    if (!value.is_number() || !(value.get<double>() > 0.0 && value.get<double>() <= tokens)) {
      wrong(where, fmt::format("must hold numbers above 0 and up to {:.0f}", tokens));
    }
    values.push_back(value.get<double>());
  }
}

// [P][L][Hkv] slots as one row.
std::vector<double> flat(const json& object, const char* field, const SlotProfile& p) {
  std::vector<double> values;
  const json& points = member(object, field);
  expect_list(points, field, static_cast<int64_t>(p.lengths.size()));
  for (size_t point = 0; point < points.size(); ++point) {
    expect_list(points[point], fmt::format("{}[{}]", field, point), p.layers);
    for (size_t layer = 0; layer < points[point].size(); ++layer) {
      const std::string where = fmt::format("{}[{}][{}]", field, point, layer);
      expect_list(points[point][layer], where, p.kv_heads);
      add_heads(points[point][layer], where, static_cast<double>(p.lengths[point]), values);
    }
  }
  return values;
}

std::vector<int64_t> lengths_from(const json& object) {
  const json& list = member(object, "lengths");
  if (!list.is_array() || list.empty() || static_cast<int64_t>(list.size()) > kMostSize) wrong("lengths", "must be a list of numbers of tokens");
  std::vector<int64_t> lengths;
  for (const json& value : list) {
    if (!value.is_number_integer() || value < 1 || value > (int64_t{1} << 40)) wrong("lengths", "must hold whole numbers above 0");
    if (!lengths.empty() && value <= lengths.back()) wrong("lengths", "must ascend");
    lengths.push_back(value.get<int64_t>());
  }
  return lengths;
}

}  // namespace

json to_json(const SlotProfile& p) {
  const Provenance& from = p.provenance;
  return {{"format", kFormat}, {"version", kProfileVersion},
          {"provenance", {{"model", from.model}, {"device", from.device}, {"dtype", from.dtype}, {"shape", from.shape}, {"target_cr", from.target_cr},
                          {"synthetic_cr", from.synthetic_cr}, {"dummy_weights", from.dummy_weights}}},
          {"model_hash", p.model_hash}, {"text", p.text}, {"windows", p.windows}, {"layers", p.layers}, {"kv_heads", p.kv_heads},
          {"lengths", p.lengths}, {"mean_slots", nested(p, p.mean_slots)}, {"most_slots", nested(p, p.most_slots)}};
}

SlotProfile profile_from(const json& object) {
  if (!object.is_object() || object.value("format", json()) != kFormat) throw std::runtime_error("no slot profile of accrete");
  const int64_t version = size_member(object, "version");
  if (version != kProfileVersion) wrong("version", fmt::format("is {}; this accrete reads {}", version, kProfileVersion));
  SlotProfile p;
  p.provenance = provenance_from(member(object, "provenance"));
  p.model_hash = text_member(object, "model_hash");
  p.text = text_member(object, "text");
  p.windows = size_member(object, "windows");
  p.layers = size_member(object, "layers");
  p.kv_heads = size_member(object, "kv_heads");
  p.lengths = lengths_from(object);
  p.mean_slots = flat(object, "mean_slots", p);
  for (double slots : flat(object, "most_slots", p)) p.most_slots.push_back(static_cast<int32_t>(slots));
  return p;
}

SlotProfile read_profile(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(fmt::format("{}: cannot read the file", path));
  const json object = json::parse(file, nullptr, false);
  if (object.is_discarded()) throw std::runtime_error(fmt::format("{}: not JSON", path));
  try {
    return profile_from(object);
  } catch (const std::exception& error) {
    throw std::runtime_error(fmt::format("{}: {}", path, error.what()));
  }
}

}  // namespace accrete::launch
