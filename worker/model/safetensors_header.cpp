#include "worker/model/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

using nlohmann::json;

constexpr size_t kMostDimensions = 8;

// The handler of nlohmann's event parser. Depth 1 is the table, 2 an entry, 3 a list inside it.
class HeaderEvents : public json::json_sax_t {
 public:
  explicit HeaderEvents(const std::string& where) : where_(where) {}
  SafetensorsTable table;

  bool start_object(std::size_t) override {
    if (++depth_ > 2 || (depth_ == 2 && in_list_)) refuse("an object");
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) finish_entry();
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_list_ || in_metadata_ || (field_ != "shape" && field_ != "data_offsets")) refuse("a list");
    in_list_ = true;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    in_list_ = false;
    if (field_ == "shape") {
      entry_.shape = numbers_;
    } else {
      if (numbers_.size() != 2 || numbers_[0] > numbers_[1]) refuse("no pair [begin, end] of offsets");
      entry_.offset = static_cast<uint64_t>(numbers_[0]);
      entry_.bytes = static_cast<uint64_t>(numbers_[1] - numbers_[0]);
    }
    return true;
  }
  bool key(std::string& name) override {
    if (depth_ == 1)
      start_entry(name);
    else
      start_field(name);
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ == 2 && in_metadata_) return true;
    if (depth_ != 2 || in_list_ || field_ != "dtype") refuse("a string");
    entry_.dtype = text;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    if (!in_list_) refuse("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) refuse("a number beyond 63 bits");
    if (numbers_.size() == kMostDimensions) refuse("a list of more than 8 numbers");
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(int64_t) override { refuse("a negative number"); }
  bool number_float(double, const std::string&) override { refuse("a number that is no integer"); }
  bool boolean(bool) override { refuse("a boolean"); }
  bool null() override { refuse("null"); }
  bool binary(json::binary_t&) override { refuse("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    model_error("{}: the header is not valid JSON, at byte {}", where_, position);
  }

 private:
  [[noreturn]] void refuse(const char* what) const {
    if (depth_ < 2 && name_.empty()) model_error("{}: the header is {}, not an object of tensors", where_, what);
    model_error("{}: tensor {}: {} is {}", where_, in_quotes(name_), field_.empty() ? "the entry" : in_quotes(field_),
                what);
  }
  void start_entry(const std::string& name) {
    name_ = name;
    field_.clear();
    entry_ = {};
    has_dtype_ = has_shape_ = has_offsets_ = false;
    in_metadata_ = name == "__metadata__";
    if (table.contains(name) || (in_metadata_ && std::exchange(seen_metadata_, true))) {
      model_error("{}: tensor {} stands twice in the header", where_, in_quotes(name));
    }
  }
  void start_field(const std::string& field) {
    field_ = field;
    if (in_metadata_) return;
    bool* seen = field == "dtype" ? &has_dtype_ : field == "shape" ? &has_shape_ : nullptr;
    if (field == "data_offsets") seen = &has_offsets_;
    if (seen == nullptr) refuse("a field the format does not know");
    if (std::exchange(*seen, true)) refuse("given twice");
  }
  void finish_entry() {
    for (const auto& [seen, field] :
         {std::pair(has_dtype_, "dtype"), {has_shape_, "shape"}, {has_offsets_, "data_offsets"}}) {
      if (!seen) model_error("{}: tensor {}: {} is missing", where_, in_quotes(name_), field);
    }
    table.emplace(name_, std::move(entry_));
  }

  const std::string& where_;
  int depth_ = 0;
  bool in_list_ = false, in_metadata_ = false, seen_metadata_ = false;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  std::string name_, field_;
  std::vector<int64_t> numbers_;
  SafetensorsEntry entry_;
};

}  // namespace

SafetensorsTable parse_safetensors_header(std::string_view header, const std::string& where) {
  HeaderEvents events(where);
  if (!json::sax_parse(header, &events)) model_error("{}: the header is not valid JSON", where);
  return std::move(events.table);
}

}  // namespace accrete::worker
