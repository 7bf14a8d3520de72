#include "worker/model/encoding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/worker/model/model_files.h"
#include "worker/model/safetensors.h"

namespace accrete::worker {
namespace {

constexpr Encoding kGolden[] = {Encoding::f16,  Encoding::q4_0, Encoding::q4_1, Encoding::q5_0, Encoding::q5_1,
                                Encoding::q8_0, Encoding::q4_k, Encoding::q5_k, Encoding::q6_k};

class EncodingGolden : public ::testing::TestWithParam<Encoding> {};

// tests/golden/gguf/make.py made the file with the gguf package.
TEST_P(EncodingGolden, DecodesAsTheReference) {
  const FileBytes file = FileBytes::map(ACCRETE_SOURCE_DIR "/tests/golden/gguf/blocks.safetensors");
  const SafetensorsTable table = parse_safetensors(file);
  const EncodingShape& shape = shape_of(GetParam());
  const SafetensorsEntry& blocks = table.at(std::string(shape.name) + ".bytes");
  const SafetensorsEntry& floats = table.at(std::string(shape.name) + ".floats");
  const auto count = static_cast<int64_t>(floats.bytes / 4);
  ASSERT_EQ(static_cast<int64_t>(blocks.bytes) / shape.bytes * shape.block, count);
  std::vector<float> expected(static_cast<size_t>(count)), decoded(static_cast<size_t>(count));
  std::memcpy(expected.data(), file.bytes().data() + floats.offset, floats.bytes);
  decode_blocks(GetParam(), file.bytes().data() + blocks.offset, count / shape.block, decoded.data());
  for (int64_t i = 0; i < count; ++i) ASSERT_EQ(decoded[i], expected[i]) << shape.name << " element " << i;
}

INSTANTIATE_TEST_SUITE_P(Types, EncodingGolden, ::testing::ValuesIn(kGolden),
                         [](const auto& info) { return std::string(shape_of(info.param).name); });

TEST(Encoding, HalvesKeepInfinityAndNan) {
  const uint16_t halves[] = {0x7c00, 0xfc00, 0x7e01, 0x8000, 0x0001, 0x83ff};
  float values[6];
  halves_to_floats(reinterpret_cast<const uint8_t*>(halves), 6, values);
  EXPECT_EQ(values[0], std::numeric_limits<float>::infinity());
  EXPECT_EQ(values[1], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_TRUE(std::signbit(values[3]) && values[3] == 0.0f);
  EXPECT_EQ(values[4], 0x1p-24f);
  EXPECT_EQ(values[5], -1023.0f * 0x1p-24f);
}

TEST(Encoding, RoundsToBf16AsTheType) {
  std::vector<float> values = {0.0f,
                               -0.0f,
                               1.0f,
                               1.00390625f,
                               1.01171875f,
                               3.4e38f,
                               1e-40f,
                               -1.0f / 3.0f,
                               std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::quiet_NaN()};
  for (int i = 0; i < 1000; ++i)
    values.push_back(std::sin(static_cast<float>(i)) * std::pow(10.0f, static_cast<float>(i % 40 - 20)));
  std::vector<bf16> rounded(values.size());
  floats_to_bfloats(values.data(), static_cast<int64_t>(values.size()), rounded.data());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(rounded[i].bits, bf16(values[i]).bits) << values[i];
  std::vector<float> wide(values.size());
  bfloats_to_floats(reinterpret_cast<const uint8_t*>(rounded.data()), static_cast<int64_t>(values.size()), wide.data());
  for (size_t i = 0; i + 1 < values.size() && i < 8; ++i) EXPECT_EQ(wide[i], static_cast<float>(rounded[i]));
}

// A slice of any columns must equal the same columns of the whole, whatever blocks they cut.
class EncodingSlices : public ::testing::TestWithParam<Encoding> {};

TEST_P(EncodingSlices, AnyColumnsEqualTheWhole) {
  const EncodingShape& shape = shape_of(GetParam());
  const int64_t rows = 3, columns = 2560;  // over one chunk of the reader
  std::vector<uint8_t> data(static_cast<size_t>(rows * columns / shape.block * shape.bytes));
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = static_cast<uint8_t>((i * 2654435761u) >> 13) & 0x3b;  // finite halves
  const FileBytes file = FileBytes::borrow(data, "m");
  const StoredTensor tensor{&file, GetParam(), rows, columns, 0, 0};
  std::vector<float> whole(static_cast<size_t>(rows * columns));
  read_slice(tensor, {0, rows, 0, columns}, DType::f32, whole.data());
  const std::pair<int64_t, int64_t> ranges[] = {{0, 1},       {31, 33},     {5, 2555}, {255, 257},
                                                {2047, 2049}, {2559, 2560}, {64, 128}};
  for (const auto& [begin, end] : ranges) {
    std::vector<float> part(static_cast<size_t>(2 * (end - begin)));
    std::vector<bf16> narrow(part.size());
    read_slice(tensor, {1, 3, begin, end}, DType::f32, part.data());
    read_slice(tensor, {1, 3, begin, end}, DType::bf16, narrow.data());
    for (size_t i = 0; i < part.size(); ++i) {
      const auto row = 1 + static_cast<int64_t>(i) / (end - begin),
                 column = begin + static_cast<int64_t>(i) % (end - begin);
      ASSERT_EQ(part[i], whole[static_cast<size_t>(row * columns + column)])
          << shape.name << " " << row << " " << column;
      ASSERT_EQ(narrow[i].bits, bf16(part[i]).bits);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, EncodingSlices,
                         ::testing::Values(Encoding::f32, Encoding::f16, Encoding::bf16, Encoding::q4_0, Encoding::q4_1,
                                           Encoding::q5_0, Encoding::q5_1, Encoding::q8_0, Encoding::q4_k,
                                           Encoding::q5_k, Encoding::q6_k),
                         [](const auto& info) { return std::string(shape_of(info.param).name); });

}  // namespace
}  // namespace accrete::worker
