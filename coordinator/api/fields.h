// Fields: typed, ranged reading of a JSON object's members; what is wrong names its field.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace accrete::coordinator {

// An answer 400: `param` is the field, e.g. "messages[0].role"; empty when it is the body itself.
struct FieldError : std::runtime_error {
  FieldError(std::string where, const std::string& what) : std::runtime_error(what), param(std::move(where)) {}
  std::string param;
};

// The body as a JSON object; throws FieldError when it is none or nests deeper than 64 levels.
nlohmann::json parse_object(std::string_view body);

class Fields {
 public:
  explicit Fields(const nlohmann::json& object, std::string prefix = "") : object_(object), prefix_(std::move(prefix)) {}

  // null counts as absent, as OpenAI's clients send it.
  bool has(const char* name) const;
  const nlohmann::json& at(const char* name) const { return object_.at(name); }
  std::string path(const char* name) const { return prefix_ + name; }

  std::optional<bool> boolean(const char* name) const;
  std::optional<int64_t> integer(const char* name, int64_t low, int64_t high = std::numeric_limits<int64_t>::max()) const;
  // A seed: any integer, negative ones by their bits.
  std::optional<uint64_t> seed(const char* name) const;
  std::optional<double> number(const char* name, double low, double high = std::numeric_limits<float>::max()) const;
  std::optional<std::string> string(const char* name) const;

 private:
  const nlohmann::json& object_;
  std::string prefix_;
};

}  // namespace accrete::coordinator
