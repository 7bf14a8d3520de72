#include "worker/model/gguf_file.h"

#include <gtest/gtest.h>

#include "tests/worker/model/model_files.h"

namespace accrete::worker {
namespace {

using namespace testing;  // NOLINT: the makers of test files

FileBytes borrow(std::string_view bytes) {
  return FileBytes::borrow({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m.gguf");
}

TEST(GgufFile, ReadsValuesOfEveryType) {
  GgufBuilder builder;
  builder.text("text", "hello").u32("u32", 7).f32("f32", 0.5f).boolean("yes", true);
  builder.raw("i64", bytes_of<uint32_t>(11) + bytes_of<int64_t>(-5)).raw("u8", bytes_of<uint32_t>(0) + "\x09");
  builder.raw("i16", bytes_of<uint32_t>(3) + bytes_of<int16_t>(-300))
      .raw("f64", bytes_of<uint32_t>(12) + bytes_of(2.25));
  builder.texts("texts", {"a", "", "ccc"}).floats("floats", {1.5f, -2.0f}).i32s("ints", {3, -4});
  const std::string bytes = builder.build();
  const FileBytes file = borrow(bytes);
  const GgufFile gguf(file);
  EXPECT_EQ(gguf.text("text"), "hello");
  EXPECT_EQ(gguf.integer("u32"), 7);
  EXPECT_EQ(gguf.integer("i64"), -5);
  EXPECT_EQ(gguf.integer("u8"), 9);
  EXPECT_EQ(gguf.integer("i16"), -300);
  EXPECT_EQ(gguf.number("f32"), 0.5);
  EXPECT_EQ(gguf.number("f64"), 2.25);
  EXPECT_EQ(gguf.number("u32"), 7.0);
  EXPECT_EQ(gguf.boolean("yes"), true);
  EXPECT_EQ(gguf.texts("texts"), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(gguf.floats("floats"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(gguf.integers("ints"), (std::vector<int32_t>{3, -4}));
  EXPECT_EQ(gguf.text("absent"), std::nullopt);
  EXPECT_TRUE(gguf.texts("absent").empty());
}

TEST(GgufFile, RefusesValuesOfAnotherType) {
  GgufBuilder builder;
  builder.text("text", "hello")
      .u32("u32", 7)
      .i32s("ints", {1})
      .raw("huge", bytes_of<uint32_t>(10) + bytes_of(~uint64_t{0}));
  builder.f32("nan", std::numeric_limits<float>::quiet_NaN());
  const std::string bytes = builder.build();
  const FileBytes file = borrow(bytes);
  const GgufFile gguf(file);
  EXPECT_EQ(error_of([&] { gguf.integer("text"); }), "m.gguf: text must be an integer of 63 bits, not string");
  EXPECT_EQ(error_of([&] { gguf.text("u32"); }), "m.gguf: u32 must be a string, not u32");
  EXPECT_EQ(error_of([&] { gguf.texts("ints"); }), "m.gguf: ints must be an array of strings, not array of i32");
  EXPECT_EQ(error_of([&] { gguf.floats("u32"); }), "m.gguf: u32 must be an array of f32, not u32");
  EXPECT_EQ(error_of([&] { gguf.boolean("u32"); }), "m.gguf: u32 must be bool, not u32");
  EXPECT_EQ(error_of([&] { gguf.number("text"); }), "m.gguf: text must be a number, not string");
  EXPECT_EQ(error_of([&] { gguf.number("nan"); }), "m.gguf: nan is not finite");
  error_of([&] { gguf.integer("huge"); });
}

TEST(GgufFile, PlacesTensorsByTheAlignment) {
  GgufBuilder builder;
  builder.alignment = 128;
  builder.version = 2;
  builder.u32("general.alignment", 128);
  builder.tensor("a", {2, 3}, 0, std::string(24, 'a')).tensor("b", {32}, 8, std::string(34, 'b'));
  const std::string bytes = builder.build();
  const FileBytes file = borrow(bytes);
  const GgufFile gguf(file);
  EXPECT_EQ(gguf.version(), 2u);
  EXPECT_EQ(gguf.tensors().at("a").offset % 128, 0u);
  EXPECT_EQ(bytes[gguf.tensors().at("b").offset], 'b');
  EXPECT_EQ(gguf.tensors().at("b").encoding, Encoding::q8_0);
  EXPECT_EQ(gguf.tensors().at("b").bytes, 34u);
}

struct Hostile {
  const char* name;
  std::string file;
  std::string message;
};

std::string header(uint32_t version, uint64_t tensors, uint64_t values) {
  return "GGUF" + bytes_of(version) + bytes_of(tensors) + bytes_of(values);
}

// A file whose only metadata entry has the type and bytes given.
std::string with_value(const std::string& value) {
  return GgufBuilder().raw("key", value).build();
}

std::string array_of(uint32_t element, uint64_t count, const std::string& rest) {
  return bytes_of<uint32_t>(9) + bytes_of(element) + bytes_of(count) + rest;
}

std::string nested_arrays(int depth) {
  std::string value = bytes_of<uint32_t>(9);
  for (int i = 0; i < depth; ++i) value += bytes_of<uint32_t>(9) + bytes_of<uint64_t>(1);
  return value + bytes_of<uint32_t>(0) + bytes_of<uint64_t>(1) + "x";
}

std::string with_tensor(std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
  return GgufBuilder().tensor_at("t", std::move(dims), type, offset).build() + std::string(64, '\0');
}

std::string with_alignment(uint32_t alignment) {
  return GgufBuilder().u32("general.alignment", alignment).build();
}

std::vector<Hostile> hostile_headers() {
  return {
      {"no_bytes", "", "magic"},
      {"three_bytes", "GGU", "magic"},
      {"wrong_magic", "GGML" + std::string(40, '\0'), "magic"},
      {"no_version", "GGUF", "version"},
      {"version_one", header(1, 0, 0), "version 1"},
      {"version_four", header(4, 0, 0), "version 4"},
      {"big_endian", header(0x03000000, 0, 0), "big-endian"},
      {"no_counts", "GGUF" + bytes_of<uint32_t>(3), "tensor count"},
      {"tensor_count_of_all_ones", header(3, ~uint64_t{0}, 0), "tensor count"},
      {"tensor_count_too_large", header(3, 3, 0) + std::string(64, '\0'), "tensor count 3"},
      {"metadata_count_of_all_ones", header(3, 0, ~uint64_t{0}), "metadata count"},
      {"metadata_count_too_large", header(3, 0, 2) + std::string(20, '\0'), "metadata count 2"},
      {"key_past_the_end", header(3, 0, 1) + bytes_of<uint64_t>(100) + std::string(20, 'k'), "metadata key"},
      {"key_length_of_all_ones", header(3, 0, 1) + bytes_of(~uint64_t{0}) + std::string(20, 'k'), "metadata key"},
      {"key_twice", GgufBuilder().u32("a", 1).u32("a", 2).build(), "\"a\" stands twice"},
  };
}

std::vector<Hostile> hostile_values() {
  return {
      {"value_type_unknown", with_value(bytes_of<uint32_t>(13) + std::string(8, 'x')), "value type 13"},
      {"value_type_of_all_ones", with_value(bytes_of(~uint32_t{0})), "value type"},
      {"value_truncated", header(3, 0, 1) + bytes_of<uint64_t>(1) + "k" + bytes_of<uint32_t>(12) + "xyz",
       "past the end"},
      {"text_past_the_end", with_value(bytes_of<uint32_t>(8) + bytes_of<uint64_t>(1000) + "x"), "past the end"},
      {"text_length_of_all_ones", with_value(bytes_of<uint32_t>(8) + bytes_of(~uint64_t{0})), "past the end"},
      {"array_element_unknown", with_value(array_of(77, 1, "x")), "value type 77"},
      {"array_too_long", with_value(array_of(5, 1000, "x")), "1000 elements"},
      {"array_count_overflows", with_value(array_of(10, uint64_t{1} << 61, "x")), "elements"},
      {"array_of_texts_too_long", with_value(array_of(8, 1'000'000'000, "x")), "elements"},
      {"array_text_past_the_end", with_value(array_of(8, 1, bytes_of<uint64_t>(500))), "past the end"},
      {"array_of_arrays_too_long", with_value(array_of(9, 1'000'000, std::string(64, '\0'))), "elements"},
      {"arrays_nested_deeply", with_value(nested_arrays(6)), "nested deeper"},
      {"arrays_nested_very_deeply", with_value(nested_arrays(10000)), "nested deeper"},
      {"alignment_zero", with_alignment(0), "general.alignment is 0"},
      {"alignment_of_three", with_alignment(3), "general.alignment is 3"},
      {"alignment_huge", with_alignment(1u << 31), "general.alignment"},
      {"alignment_is_text", GgufBuilder().text("general.alignment", "32").build(), "general.alignment must be"},
  };
}

std::vector<Hostile> hostile_tensors() {
  constexpr uint64_t kBig = uint64_t{1} << 32;
  return {
      {"no_dimensions", with_tensor({}, 0, 0), "0 dimensions"},
      {"five_dimensions", with_tensor({1, 1, 1, 1, 1}, 0, 0), "5 dimensions"},
      {"dimension_zero", with_tensor({0, 4}, 0, 0), "a dimension is 0"},
      {"dimension_of_64_bits", with_tensor({~uint64_t{0}}, 0, 0), "overflow"},
      {"dimensions_overflow", with_tensor({kBig, kBig}, 0, 0), "overflow"},
      {"bytes_overflow", with_tensor({kBig, kBig >> 2}, 0, 0), "overflow"},
      {"type_unknown", with_tensor({32}, 99, 0), "type 99"},
      {"type_removed", with_tensor({32}, 4, 0), "type 4"},
      {"row_is_no_whole_block", with_tensor({33, 2}, 2, 0), "block of 32"},
      {"row_is_no_whole_superblock", with_tensor({128, 2}, 14, 0), "block of 256"},
      {"offset_unaligned", with_tensor({4}, 0, 16), "not aligned"},
      {"offset_outside", with_tensor({4}, 0, 4096), "outside the file"},
      {"offset_of_all_ones", with_tensor({4}, 0, ~uint64_t{0} - 31), "outside the file"},
      {"longer_than_the_file", with_tensor({4096}, 0, 0), "outside the file"},
      {"overlap", GgufBuilder().tensor_at("s", {16}, 0, 0).tensor_at("t", {4}, 0, 32).build() + std::string(64, '\0'),
       "overlaps"},
      {"name_twice",
       GgufBuilder().tensor("t", {4}, 0, std::string(16, 'x')).tensor("t", {4}, 0, std::string(16, 'x')).build(),
       "stands twice"},
      {"name_too_long", GgufBuilder().tensor(std::string(300, 'n'), {4}, 0, std::string(16, 'x')).build(),
       "the name has 300"},
      {"name_past_the_end", header(3, 1, 0) + bytes_of<uint64_t>(99) + std::string(40, 'n'), "tensor name"},
      {"table_truncated", GgufBuilder().tensor_at("tensor", {4, 4, 4}, 0, 0).build().substr(0, 60), "tensor"},
  };
}

class GgufHostile : public ::testing::TestWithParam<Hostile> {};

TEST_P(GgufHostile, IsRefusedWithItsReason) {
  const FileBytes file = borrow(GetParam().file);
  const std::string message = error_of([&] { GgufFile{file}; });
  EXPECT_NE(message.find("m.gguf: "), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().message), std::string::npos) << message;
  EXPECT_LT(message.size(), 400u);
}

const auto kNameOf = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Headers, GgufHostile, ::testing::ValuesIn(hostile_headers()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Values, GgufHostile, ::testing::ValuesIn(hostile_values()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Tensors, GgufHostile, ::testing::ValuesIn(hostile_tensors()), kNameOf);

TEST(GgufFile, EveryTruncationIsRefused) {
  const std::string bytes = tiny_gguf().build();
  for (size_t size = 0; size < bytes.size(); size += size < 3000 ? 1 : 97) {
    const FileBytes file = borrow(std::string_view(bytes).substr(0, size));
    error_of([&] { GgufFile{file}; });
  }
}

}  // namespace
}  // namespace accrete::worker
