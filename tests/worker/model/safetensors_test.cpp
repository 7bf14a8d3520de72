#include "worker/model/safetensors.h"

#include <gtest/gtest.h>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

SafetensorsTable parse(std::string_view bytes) {
  const FileBytes file =
      FileBytes::borrow({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m.safetensors");
  return parse_safetensors(file);
}

TEST(Safetensors, TablesEveryTensor) {
  const std::string file = safetensors_file({f32_tensor("a", {2, 3}, {1, 2, 3, 4, 5, 6}),
                                             bf16_tensor("b", {4}, {1, 2, 3, 4}),
                                             {"ids", "I64", {1}, std::string(8, '\0')},
                                             {"none", "F32", {0, 7}, ""}});
  const SafetensorsTable table = parse(file);
  ASSERT_EQ(table.size(), 4u);
  const uint64_t data = file.size() - 24 - 8 - 8;
  EXPECT_EQ(table.at("a").dtype, "F32");
  EXPECT_EQ(table.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(table.at("a").offset, data);
  EXPECT_EQ(table.at("b").offset, data + 24);
  EXPECT_EQ(table.at("b").bytes, 8u);
  EXPECT_EQ(table.at("none").bytes, 0u);
}

TEST(Safetensors, KeepsFloatMatricesAndVectors) {
  const std::string file = safetensors_file({f32_tensor("matrix", {2, 3}, {1, 2, 3, 4, 5, 6}),
                                             f32_tensor("vector", {2}, {1, 2}),
                                             f32_tensor("cube", {1, 1, 2}, {1, 2}),
                                             {"ids", "I64", {1}, std::string(8, '\0')}});
  const FileBytes bytes = FileBytes::borrow({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, "m");
  const StoredTensors tensors = float_tensors(parse_safetensors(bytes), bytes);
  ASSERT_EQ(tensors.size(), 2u);
  EXPECT_EQ(tensors.at("vector").rows, 1);
  EXPECT_EQ(tensors.at("vector").columns, 2);
  float row[3];
  read_slice(tensors.at("matrix"), {1, 2, 0, 3}, DType::f32, row);
  EXPECT_EQ(row[2], 6.0f);
}

struct Hostile {
  const char* name;
  std::string file;
  std::string message;  // must stand in the error, beside the file's name
};

std::string entry(const std::string& fields) {
  return "{\"t\":{" + fields + "}}";
}

const std::string kGood = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";

Hostile with_header(const char* name, const std::string& header, const std::string& message) {
  return {name, safetensors_raw(header, std::string(8, '\0')), message};
}

std::string with_length(uint64_t length, const std::string& rest) {
  return bytes_of(length) + rest;
}

std::vector<Hostile> hostile_json() {
  return {
      {"seven_bytes", "1234567", "too few"},
      {"no_bytes", "", "too few"},
      {"length_past_the_end", with_length(100, "{}"), "past the end"},
      {"length_of_all_ones", with_length(~uint64_t{0}, "{}"), "header length"},
      {"length_over_the_limit", with_length(100'000'001, "{}"), "limit"},
      {"empty_header", with_length(0, ""), "not valid JSON"},
      with_header("not_json", "hello", "not valid JSON"),
      with_header("truncated_json", "{\"t\":{\"dtype\":\"F3", "not valid JSON"),
      with_header("trailing_text", entry(kGood) + "x", "not valid JSON"),
      with_header("invalid_utf8", "{\"\xff\xfe\":{" + kGood + "}}", "not valid JSON"),
      with_header("a_list", "[1,2]", "not an object"),
      with_header("a_number", "17", "not an object"),
      with_header("a_string", "\"x\"", "not an object"),
      with_header("null", "null", "not an object"),
      with_header("entry_is_a_number", R"({"t":5})", "\"t\": the entry"),
      with_header("entry_is_null", R"({"t":null})", "\"t\": the entry"),
      with_header("entry_is_a_list", R"({"t":[]})", "\"t\": the entry"),
      with_header("nested_object", R"({"t":{"dtype":{}}})", "\"dtype\" is an object"),
      with_header("object_in_a_list", R"({"t":{"shape":[{}]}})", "\"shape\" is an object"),
      with_header("list_in_a_list", R"({"t":{"shape":[[2]]}})", "\"shape\" is a list"),
      with_header("deep_nesting", "{\"t\":{\"shape\":" + std::string(100000, '['), "\"shape\" is a list"),
      with_header("dtype_is_a_number", R"({"t":{"dtype":3}})", "\"dtype\" is a number"),
      with_header("dtype_is_unknown", entry(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"), "dtype is \"F31\""),
      with_header("dtype_missing", entry(R"("shape":[2],"data_offsets":[0,8])"), "dtype is missing"),
      with_header("shape_missing", entry(R"("dtype":"F32","data_offsets":[0,8])"), "shape is missing"),
      with_header("offsets_missing", entry(R"("dtype":"F32","shape":[2])"), "data_offsets is missing"),
      with_header("unknown_field", entry(kGood + R"(,"stride":[1])"), "\"stride\" is a field"),
      with_header("field_twice", entry(kGood + R"(,"shape":[2])"), "\"shape\" is given twice"),
      with_header("name_twice", "{\"t\":{" + kGood + "},\"t\":{" + kGood + "}}", "stands twice"),
      with_header("metadata_twice", R"({"__metadata__":{},"__metadata__":{}})", "stands twice"),
      with_header("metadata_holds_a_number", R"({"__metadata__":{"a":1}})", "\"a\" is a number"),
      with_header("negative_dimension", entry(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "negative"),
      with_header("fractional_dimension", entry(R"("dtype":"F32","shape":[2.5],"data_offsets":[0,8])"), "no integer"),
      with_header("dimension_of_64_bits", entry(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8])"),
                  "beyond 63 bits"),
      with_header("nine_dimensions", entry(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"),
                  "more than 8"),
  };
}

std::vector<Hostile> hostile_layouts() {
  return {
      with_header("shape_overflows", entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
                  "overflows"),
      with_header("shape_wraps_to_fit", entry(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"),
                  "overflows"),
      with_header("shape_too_large", entry(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), "need 12 bytes"),
      with_header("shape_too_small", entry(R"("dtype":"BF16","shape":[2],"data_offsets":[0,8])"), "need 4 bytes"),
      with_header("one_offset", entry(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "no pair"),
      with_header("three_offsets", entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,9])"), "no pair"),
      with_header("offsets_backwards", entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "no pair"),
      with_header("offsets_outside", entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,16])"), "outside the file"),
      with_header("offsets_far_outside",
                  entry(R"("dtype":"F32","shape":[2],"data_offsets":[9223372036854775799,9223372036854775807])"),
                  "outside the file"),
      with_header(
          "overlap",
          R"({"s":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
          "overlap"),
      with_header("gap", entry(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "gap"),
      with_header("bytes_left_over", entry(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "belong to none"),
      with_header("no_tensors_but_data", "{}", "belong to none"),
  };
}

class SafetensorsHostile : public ::testing::TestWithParam<Hostile> {};

TEST_P(SafetensorsHostile, IsRefusedWithItsReason) {
  const std::string message = error_of([&] { parse(GetParam().file); });
  EXPECT_NE(message.find("m.safetensors: "), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
  EXPECT_LT(message.size(), 400u);
}

const auto kNameOf = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Json, SafetensorsHostile, ::testing::ValuesIn(hostile_json()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Layouts, SafetensorsHostile, ::testing::ValuesIn(hostile_layouts()), kNameOf);

// Any prefix of a good file is a bad file, and none may crash.
TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string file = safetensors_file({f32_tensor("a", {2}, {1, 2}), bf16_tensor("b", {2, 2}, {1, 2, 3, 4})});
  for (size_t size = 0; size < file.size(); ++size) error_of([&] { parse(std::string_view(file).substr(0, size)); });
}

}  // namespace
}  // namespace accrete::worker
