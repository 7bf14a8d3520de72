// The image of a row, word by word on the host: where each word lies is what the CUDA kernels go by.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "cache/kv_cache.h"
#include "tests/cache/slot_source.h"

namespace accrete::cache {
namespace {

KvCacheShape shape_of(DType dtype, bool dmc, int window) {
  return {.layers = 3, .kv_heads = 2, .head_size = 8, .sequences = 4, .max_tokens = 40, .pages = 200, .page_slots = 4, .window = window,
          .dmc = dmc, .dtype = dtype};
}

void append(KvCache& cache, const std::vector<int32_t>& rows, int32_t tokens, uint64_t key) {
  const std::vector<int32_t> each(rows.size(), tokens);
  const std::vector<uint64_t> keys(rows.size(), key);
  const auto count = static_cast<int64_t>(rows.size());
  AppendSlots op;
  op.cache = cache.ref();
  op.rows = View<const int32_t, 1>(rows.data(), {count});
  op.tokens = View<const int32_t, 1>(each.data(), {count});
  op.keys = View<const uint64_t, 1>(keys.data(), {count});
  append_slots_cpu(op);
  ASSERT_FALSE(cache.take_exhausted());
}

View<const RowHead, 1> view_of(const std::vector<RowHead>& heads) { return {heads.data(), {static_cast<int64_t>(heads.size())}}; }

uint32_t read(const ImageWord& word) {
  uint32_t value = 0;
  if (word.kind == ImageWord::kNarrow) {
    const auto wide = static_cast<float>(*static_cast<const bf16*>(word.at));
    std::memcpy(&value, &wide, sizeof(value));
  } else if (word.at) {
    std::memcpy(&value, word.at, sizeof(value));
  }
  return value;
}

std::vector<uint32_t> gathered(const RowImage& image) {
  std::vector<uint32_t> words;
  for (int64_t word = 0; word < image.heads[image.head_count].word_begin; ++word) {
    const int32_t index = head_of_word(image, word);
    words.push_back(read(image_word(image, index, word - image.heads[index].word_begin)));
  }
  return words;
}

std::vector<uint32_t> words_of(const std::vector<std::byte>& snapshot) {
  std::vector<uint32_t> words((snapshot.size() - sizeof(SnapshotHeader)) / sizeof(uint32_t));
  std::memcpy(words.data(), snapshot.data() + sizeof(SnapshotHeader), words.size() * sizeof(uint32_t));
  return words;
}

class RowImageTest : public testing::TestWithParam<KvCacheShape> {};

TEST_P(RowImageTest, words_are_those_of_the_snapshot) {
  KvCache cache(GetParam());
  append(cache, {0, 2, 3}, 9, 1);
  append(cache, {2, 3}, 12, 2);
  for (int32_t row = 0; row < 4; ++row) {
    const std::vector<RowHead> heads = row_heads(cache.shape(), cache.slot_counts(row), {});
    EXPECT_EQ(gathered(row_image(cache.ref(), row, view_of(heads))), words_of(cache.export_row(row))) << "row " << row;
  }
}

// A ring in bf16 of the same values is the same image.
TEST_P(RowImageTest, narrow_rings_are_widened) {
  KvCache cache(GetParam());
  if (!GetParam().dmc) GTEST_SKIP() << "keeps no ring";
  append(cache, {1}, 9, 1);
  CacheRef ref = cache.ref();
  std::vector<bf16> ring_k, ring_v;
  for (int64_t i = 0; i < ref.ring_k.as<float>().size(); ++i) {
    ring_k.push_back(bf16(static_cast<float*>(ref.ring_k.data)[i]));
    ring_v.push_back(bf16(static_cast<float*>(ref.ring_v.data)[i]));
  }
  ref.ring_k = View<bf16, 4>(ring_k.data(), ref.ring_k.shape);
  ref.ring_v = View<bf16, 4>(ring_v.data(), ref.ring_v.shape);
  const std::vector<RowHead> heads = row_heads(cache.shape(), cache.slot_counts(1), {});
  EXPECT_EQ(gathered(row_image(ref, 1, view_of(heads))), words_of(cache.export_row(1)));
}

// Every word of the row has a place of its own.
TEST_P(RowImageTest, no_two_words_share_a_place) {
  KvCache cache(GetParam());
  append(cache, {1, 2}, 20, 5);
  const std::vector<RowHead> heads = row_heads(cache.shape(), cache.slot_counts(1), {});
  const RowImage image = row_image(cache.ref(), 1, view_of(heads));
  std::vector<const void*> places;
  for (int64_t word = 0; word < heads.back().word_begin; ++word) {
    const int32_t index = head_of_word(image, word);
    const ImageWord place = image_word(image, index, word - heads[index].word_begin);
    if (place.kind == ImageWord::kSegment && !place.at) continue;
    ASSERT_NE(place.at, nullptr) << "word " << word;
    places.push_back(place.at);
  }
  std::sort(places.begin(), places.end());
  EXPECT_EQ(std::adjacent_find(places.begin(), places.end()), places.end());
}

// A row whose pages could not be taken has nowhere to put its slots.
TEST_P(RowImageTest, slots_without_pages_are_nowhere) {
  KvCache cache(GetParam());
  std::vector<int32_t> slots(cache.shape().heads(), 7);
  const std::vector<RowHead> heads = row_heads(cache.shape(), slots, {});
  const RowImage image = row_image(cache.ref(), 0, view_of(heads));
  const int64_t vectors = 2 * 7 * image.slot_words;
  for (int64_t word = 2; word < 2 + vectors; ++word) EXPECT_EQ(image_word(image, 3, word).at, nullptr);
}

INSTANTIATE_TEST_SUITE_P(shapes, RowImageTest,
                         testing::Values(shape_of(DType::f32, true, 12), shape_of(DType::bf16, true, 3), shape_of(DType::bf16, true, 0),
                                         shape_of(DType::bf16, false, 12)),
                         [](const auto& info) {
                           return std::string(name_of(info.param.dtype)) + (info.param.dmc ? "_window_" + std::to_string(info.param.window) : "_plain");
                         });

}  // namespace
}  // namespace accrete::cache
