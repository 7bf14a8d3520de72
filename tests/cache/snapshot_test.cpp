// Snapshots that are damaged, forged or of another shape are refused, and nothing changes; an audit finds what is wrong with tables.
#include "cache/snapshot.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "cache/kv_cache.h"
#include "tests/cache/slot_source.h"

namespace accrete::cache {
namespace {

KvCacheShape shape_of_tests() {
  return {.layers = 2, .kv_heads = 2, .head_size = 8, .sequences = 3, .max_tokens = 24, .pages = 60, .page_slots = 4, .window = 3,
          .dmc = true, .dtype = DType::bf16};
}

class SnapshotTest : public testing::Test {
 protected:
  SnapshotTest() : cache_(shape_of_tests()) {
    const int32_t row = 1, tokens = 20;
    const uint64_t key = 5;
    AppendSlots op;
    op.cache = cache_.ref();
    op.rows = View<const int32_t, 1>(&row, {1});
    op.tokens = View<const int32_t, 1>(&tokens, {1});
    op.keys = View<const uint64_t, 1>(&key, {1});
    append_slots_cpu(op);
    snapshot_ = cache_.export_row(1);
  }

  // The message that an import into row 0 ends with.
  std::string refusal(const std::vector<std::byte>& bytes) {
    const int64_t free = cache_.free_pages();
    try {
      cache_.import_row(0, bytes);
      return "";
    } catch (const SnapshotError& error) {
      EXPECT_EQ(cache_.free_pages(), free);
      EXPECT_EQ(cache_.use(0).slots, 0);
      EXPECT_EQ(cache_.audit(), std::nullopt);
      return error.what();
    }
  }
  std::string refusal_of_header(const std::function<void(SnapshotHeader&)>& edit) {
    std::vector<std::byte> bytes = snapshot_;
    SnapshotHeader header;
    std::memcpy(&header, bytes.data(), sizeof(header));
    edit(header);
    std::memcpy(bytes.data(), &header, sizeof(header));
    return refusal(bytes);
  }
  // With one number of the image changed, and a checksum that fits.
  std::string refusal_of_forged(size_t word, int32_t value) {
    std::vector<std::byte> bytes = snapshot_;
    std::memcpy(bytes.data() + sizeof(SnapshotHeader) + word * sizeof(int32_t), &value, sizeof(value));
    seal(bytes);
    return refusal(bytes);
  }

  KvCache cache_;
  std::vector<std::byte> snapshot_;
};

TEST_F(SnapshotTest, is_what_it_says) {
  EXPECT_EQ(snapshot_pages(snapshot_), cache_.use(1).pages);
  const std::vector<RowHead> heads = read_row_heads(snapshot_, cache_.shape());
  EXPECT_EQ(snapshot_bytes(heads), snapshot_.size());
  EXPECT_EQ(heads.back().page_begin, cache_.use(1).pages);
  const std::vector<int32_t> counts = cache_.slot_counts(1);
  for (size_t i = 0; i < counts.size(); ++i) EXPECT_EQ(heads[i].slots, counts[i]);
  ASSERT_TRUE(cache_.import_row(0, snapshot_));
  EXPECT_EQ(cache_.export_row(0), snapshot_);
}

TEST_F(SnapshotTest, damage_is_found) {
  for (size_t at = 0; at < snapshot_.size(); at += 7) {
    std::vector<std::byte> bytes = snapshot_;
    bytes[at] ^= std::byte{0x20};
    EXPECT_NE(refusal(bytes), "") << "byte " << at;
  }
  for (size_t size : {size_t{0}, sizeof(SnapshotHeader) - 1, sizeof(SnapshotHeader), snapshot_.size() - 1}) {
    EXPECT_NE(refusal({snapshot_.begin(), snapshot_.begin() + static_cast<int64_t>(size)}), "") << size << " bytes";
  }
}

TEST_F(SnapshotTest, another_shape_is_named) {
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.version = 2; }).find("version"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.layers = 3; }).find("layers"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.kv_heads = 1; }).find("kv_heads"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.head_size = 16; }).find("head_size"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.page_slots = 8; }).find("page_slots"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.window = 0; }).find("window"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.dmc = 0; }).find("dmc"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.dtype = 0; }).find("dtype"), std::string::npos);
  EXPECT_NE(refusal_of_header([](SnapshotHeader& h) { h.pages += 1; }).find("pages"), std::string::npos);
}

TEST_F(SnapshotTest, forged_counts_are_named) {
  EXPECT_NE(refusal_of_forged(0, -1).find("slots"), std::string::npos);
  EXPECT_NE(refusal_of_forged(0, 25).find("slots"), std::string::npos);
  EXPECT_NE(refusal_of_forged(1, -1).find("segment"), std::string::npos);
  EXPECT_NE(refusal_of_forged(1, 25).find("segment"), std::string::npos);
  for (int32_t slots = 0; slots <= 24; ++slots) {
    if (slots == cache_.slot_counts(1)[0]) continue;
    EXPECT_NE(refusal_of_forged(0, slots), "") << slots;
  }
}

TEST_F(SnapshotTest, audit_finds_what_is_wrong) {
  ASSERT_EQ(cache_.audit(), std::nullopt);
  CacheRef ref = cache_.ref();
  const auto found_with = [&](int32_t& entry, int32_t value) {
    const int32_t before = entry;
    entry = value;
    const bool found = cache_.audit().has_value();
    entry = before;
    return found;
  };
  int64_t head = 0;
  while (ref.slots(0, 1, head) < 2) ++head;
  EXPECT_TRUE(found_with(ref.slots(0, 1, head), ref.slots(0, 1, head) + 8)) << "slots without pages";
  EXPECT_TRUE(found_with(ref.slots(0, 1, head), 0)) << "pages without slots";
  EXPECT_TRUE(found_with(ref.slots(0, 1, head), -3));
  EXPECT_TRUE(found_with(ref.segment(1, 2, 0), -1));
  EXPECT_TRUE(found_with(ref.page_rows(0, 1, head, 0), kNoPage)) << "a lost page";
  EXPECT_TRUE(found_with(ref.page_rows(0, 1, head, 0), ref.pool.free_ring[*ref.pool.take_ticket])) << "a free page in use";
  EXPECT_TRUE(found_with(ref.page_rows(0, 1, head, 0), 60));
  EXPECT_TRUE(found_with(ref.page_rows(0, 1, head, 5), 0)) << "an entry beyond the last";
  EXPECT_TRUE(found_with(ref.pool.free_ring[59], ref.pool.free_ring[58])) << "a page twice free";
  EXPECT_EQ(cache_.audit(), std::nullopt);
}

}  // namespace
}  // namespace accrete::cache
