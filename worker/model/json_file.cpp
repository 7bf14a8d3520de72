#include "worker/model/json_file.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

using nlohmann::json;

constexpr int kDeepest = 32;

[[noreturn]] void wrong_type(const std::string& where, std::string_view field, const char* wanted, const json& value) {
  model_error("{}: {} must be {}, not {}", where, field, wanted, value.type_name());
}

int64_t as_integer(const std::string& where, std::string_view field, const json& value) {
  if (!value.is_number_integer()) wrong_type(where, field, "an integer", value);
  if (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    model_error("{}: {} is too large", where, field);
  }
  return value.get<int64_t>();
}

int32_t as_token_id(const std::string& where, std::string_view field, const json& value) {
  const int64_t id = as_integer(where, field, value);
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) model_error("{}: {} is no token id: {}", where, field, id);
  return static_cast<int32_t>(id);
}

}  // namespace

std::string read_text_file(const std::string& path, int64_t limit) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) model_error("{}: cannot read: {}", path, error.message());
  if (size > static_cast<uint64_t>(limit)) {
    model_error("{}: {} bytes; at most {} are read from such a file", path, size, limit);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (!file) model_error("{}: cannot read", path);
  return text;
}

json parse_json(std::string_view text, const std::string& where) {
  const auto check_depth = [&](int depth, json::parse_event_t, json&) {
    if (depth > kDeepest) model_error("{}: JSON nested deeper than {}", where, kDeepest);
    return true;
  };
  try {
    return json::parse(text, check_depth);
  } catch (const json::exception& error) {
    model_error("{}: not valid JSON: {}", where, error.what());
  }
}

JsonObject::JsonObject(json value, std::string where) : value_(std::move(value)), where_(std::move(where)) {
  if (!value_.is_object()) model_error("{}: must be a JSON object, not {}", where_, value_.type_name());
}

JsonObject JsonObject::read(const std::string& path, int64_t limit) {
  return JsonObject(parse_json(read_text_file(path, limit), path), path);
}

const json& JsonObject::field(std::string_view name) const {
  static const json kNull;
  const auto it = value_.find(name);
  return it == value_.end() ? kNull : *it;
}

bool JsonObject::has(std::string_view name) const {
  return !field(name).is_null();
}

int64_t JsonObject::integer(std::string_view name) const {
  if (!has(name)) model_error("{}: {} is missing", where_, name);
  return as_integer(where_, name, field(name));
}

int64_t JsonObject::integer(std::string_view name, int64_t fallback) const {
  return has(name) ? integer(name) : fallback;
}

double JsonObject::number(std::string_view name, double fallback) const {
  if (!has(name)) return fallback;
  if (!field(name).is_number()) wrong_type(where_, name, "a number", field(name));
  const auto value = field(name).get<double>();
  if (!std::isfinite(value)) model_error("{}: {} is not finite", where_, name);
  return value;
}

bool JsonObject::boolean(std::string_view name, bool fallback) const {
  if (!has(name)) return fallback;
  if (!field(name).is_boolean()) wrong_type(where_, name, "true or false", field(name));
  return field(name).get<bool>();
}

std::string JsonObject::text(std::string_view name, std::string fallback) const {
  if (!has(name)) return fallback;
  if (!field(name).is_string()) wrong_type(where_, name, "a string", field(name));
  return field(name).get<std::string>();
}

std::optional<JsonObject> JsonObject::object(std::string_view name) const {
  if (!has(name)) return std::nullopt;
  return JsonObject(field(name), fmt::format("{}: {}", where_, name));
}

std::vector<std::string> JsonObject::texts(std::string_view name) const {
  std::vector<std::string> list;
  if (!has(name)) return list;
  if (!field(name).is_array()) wrong_type(where_, name, "a list of strings", field(name));
  for (const json& item : field(name)) {
    if (!item.is_string()) wrong_type(where_, name, "a list of strings", item);
    list.push_back(item.get<std::string>());
  }
  return list;
}

std::vector<int32_t> JsonObject::token_ids(std::string_view name) const {
  std::vector<int32_t> ids;
  if (!has(name)) return ids;
  if (!field(name).is_array()) return {as_token_id(where_, name, field(name))};
  for (const json& item : field(name)) ids.push_back(as_token_id(where_, name, item));
  return ids;
}

}  // namespace accrete::worker
