#include "coordinator/api/fields.h"

#include <fmt/format.h>

#include <cmath>

namespace accrete::coordinator {

using nlohmann::json;

json parse_object(std::string_view body) {
  static constexpr int kMaxDepth = 64;
  try {
    json value = json::parse(body, [](int depth, json::parse_event_t, json&) {
      if (depth > kMaxDepth) throw FieldError("", fmt::format("the body nests deeper than {} levels", kMaxDepth));
      return true;
    });
    if (!value.is_object()) throw FieldError("", "the body must be a JSON object");
    return value;
  } catch (const json::exception& error) {
    throw FieldError("", fmt::format("the body is not valid JSON: {}", error.what()));
  }
}

bool Fields::has(const char* name) const {
  const auto found = object_.find(name);
  return found != object_.end() && !found->is_null();
}

std::optional<bool> Fields::boolean(const char* name) const {
  if (!has(name)) return std::nullopt;
  if (!at(name).is_boolean()) throw FieldError(path(name), fmt::format("{} must be a boolean", path(name)));
  return at(name).get<bool>();
}

std::optional<int64_t> Fields::integer(const char* name, int64_t low, int64_t high) const {
  if (!has(name)) return std::nullopt;
  const json& value = at(name);
  const bool whole_float = value.is_number_float() && std::floor(value.get<double>()) == value.get<double>() && std::abs(value.get<double>()) < 1e15;
  if (!value.is_number_integer() && !whole_float) throw FieldError(path(name), fmt::format("{} must be an integer", path(name)));
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(high)) {
    throw FieldError(path(name), fmt::format("{} must be at most {}", path(name), high));
  }
  const int64_t number = whole_float ? static_cast<int64_t>(value.get<double>()) : value.get<int64_t>();
  if (number < low) throw FieldError(path(name), fmt::format("{} must be at least {}, it is {}", path(name), low, number));
  if (number > high) throw FieldError(path(name), fmt::format("{} must be at most {}, it is {}", path(name), high, number));
  return number;
}

std::optional<uint64_t> Fields::seed(const char* name) const {
  if (!has(name)) return std::nullopt;
  if (!at(name).is_number_integer()) throw FieldError(path(name), fmt::format("{} must be an integer", path(name)));
  return at(name).is_number_unsigned() ? at(name).get<uint64_t>() : static_cast<uint64_t>(at(name).get<int64_t>());
}

std::optional<double> Fields::number(const char* name, double low, double high) const {
  if (!has(name)) return std::nullopt;
  if (!at(name).is_number()) throw FieldError(path(name), fmt::format("{} must be a number", path(name)));
  const double value = at(name).get<double>();
  if (!(value >= low && value <= high)) {
    throw FieldError(path(name), high == std::numeric_limits<float>::max() ? fmt::format("{} must be at least {}, it is {}", path(name), low, value)
                                                                         : fmt::format("{} must be in [{}, {}], it is {}", path(name), low, high, value));
  }
  return value;
}

std::optional<std::string> Fields::string(const char* name) const {
  if (!has(name)) return std::nullopt;
  if (!at(name).is_string()) throw FieldError(path(name), fmt::format("{} must be a string", path(name)));
  return at(name).get<std::string>();
}

}  // namespace accrete::coordinator
