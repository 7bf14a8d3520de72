// JsonObject: one object of a model's JSON file, whose fields are read with errors that name file and field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace accrete::worker {

// The whole file; throws ModelError when it is missing or larger than `limit` bytes.
std::string read_text_file(const std::string& path, int64_t limit);

// Parses text that nests at most 32 deep; throws ModelError naming `where`.
nlohmann::json parse_json(std::string_view text, const std::string& where);

class JsonObject {
 public:
  // Throws ModelError when `value` is no object.
  JsonObject(nlohmann::json value, std::string where);
  static JsonObject read(const std::string& path, int64_t limit);

  // Every reader below throws ModelError when the field is there and has another type. null counts as absent.
  bool has(std::string_view field) const;
  int64_t integer(std::string_view field) const;  // throws when absent
  int64_t integer(std::string_view field, int64_t fallback) const;
  double number(std::string_view field, double fallback) const;
  bool boolean(std::string_view field, bool fallback) const;
  std::string text(std::string_view field, std::string fallback) const;
  std::optional<JsonObject> object(std::string_view field) const;
  std::vector<std::string> texts(std::string_view field) const;  // a list of strings; empty when absent
  std::vector<int32_t> token_ids(std::string_view field) const;  // an id, or a list of them; empty when absent

  const nlohmann::json& value() const { return value_; }
  const std::string& where() const { return where_; }
  // The field's value; null when absent.
  const nlohmann::json& field(std::string_view name) const;

 private:
  nlohmann::json value_;
  std::string where_;
};

}  // namespace accrete::worker
