// DeviceKvCache against KvCache: the same random steps, releases, swaps and exhaustion must leave the same bits in both.
#if defined(ACCRETE_CUDA)
#include "cache/device_kv_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "cache/kv_cache.h"
#include "kernels/cuda.h"
#include "kernels/paging/cache_ops.h"
#include "tests/cache/slot_source.h"

namespace accrete::cache {
namespace {

constexpr int64_t kSmallPieces = 1028;  // bytes: a row moves in many pieces, whose ends fall anywhere in its heads

KvCacheShape small_shape(bool dmc, int window) {
  return {.layers = 3, .kv_heads = 3, .head_size = 64, .sequences = 7, .max_tokens = 60, .pages = 220, .page_slots = 4, .window = window,
          .dmc = dmc, .dtype = DType::bf16};
}
KvCacheShape on_device(KvCacheShape shape) {
  shape.device = true;
  return shape;
}

template <class T>
class OnDevice {
 public:
  OnDevice(const std::vector<T>& values, Stream& stream) : memory_(values.size() * sizeof(T)), count_(static_cast<int64_t>(values.size())) {
    copy_to_device(memory_.data(), values.data(), memory_.bytes(), stream);
    synchronize(stream);
  }
  View<T, 1> view() const { return {memory_.as<T>(), {count_}}; }

 private:
  DeviceMemory memory_;
  int64_t count_;
};

// The two caches, and the steps that both are told.
class Twins {
 public:
  Twins(const KvCacheShape& shape, int64_t move_bytes = kSmallPieces) : host(shape), device(on_device(shape), stream(), move_bytes) {}

  Stream& stream() { return stream_.stream(); }

  void append(const std::vector<int32_t>& rows, const std::vector<int32_t>& tokens, uint64_t seed, bool bulk) {
    std::vector<uint64_t> keys;
    for (int32_t row : rows) keys.push_back(mix(seed, row));
    const auto count = static_cast<int64_t>(rows.size());
    AppendSlots op;
    op.cache = host.ref();
    op.rows = View<const int32_t, 1>(rows.data(), {count});
    op.tokens = View<const int32_t, 1>(tokens.data(), {count});
    op.keys = View<const uint64_t, 1>(keys.data(), {count});
    op.bulk = bulk;
    append_slots_cpu(op);
    const OnDevice<int32_t> device_rows(rows, stream()), device_tokens(tokens, stream());
    const OnDevice<uint64_t> device_keys(keys, stream());
    op.cache = device.ref();
    op.rows = device_rows.view();
    op.tokens = device_tokens.view();
    op.keys = device_keys.view();
    append_slots_cuda(op, stream());
    synchronize(stream());
  }

  void release(const std::vector<int32_t>& rows) {
    for (int32_t row : rows) host.release(row);
    device.release(rows);
  }

  // Counts, uses, pools and tables agree.
  void expect_equal() {
    EXPECT_EQ(device.audit(), std::nullopt);
    EXPECT_EQ(device.free_pages(), host.free_pages());
    EXPECT_EQ(device.bytes_in_use(), host.bytes_in_use());
    const auto rows = static_cast<int32_t>(host.shape().sequences);
    std::vector<int32_t> list{-1};
    for (int32_t row = rows - 1; row >= 0; --row) list.push_back(row);
    UseReport report(rows + 3);
    const OnDevice<int32_t> device_list(list, stream());
    device.use(device_list.view(), report);
    synchronize(stream());
    EXPECT_EQ(report.free_pages(), host.free_pages());
    EXPECT_EQ(report.row(0).full_heads, 0) << "a skipped row uses nothing";
    for (size_t i = 1; i < list.size(); ++i) {
      EXPECT_EQ(device.slot_counts(list[i]), host.slot_counts(list[i]));
      for (const RowUse& use : {report.row(static_cast<int64_t>(i)), device.use(list[i])}) {
        EXPECT_EQ(use.pages, host.use(list[i]).pages);
        EXPECT_EQ(use.slots, host.use(list[i]).slots);
        EXPECT_EQ(use.full_heads, host.use(list[i]).full_heads);
        EXPECT_EQ(use.last_slot_heads, host.use(list[i]).last_slot_heads);
      }
    }
  }

 private:
  DeviceStream stream_;

 public:
  KvCache host;
  DeviceKvCache device;
};

// A step writes the DMC state of all heads of its rows, so snapshots of rows in use are equal to the byte. (In a row that a dry pool
// emptied, what is left of it may differ: which heads went without a page is not determined.)
class Stress {
 public:
  Stress(const KvCacheShape& shape, uint32_t seed) : twins_(shape), random_(seed), most_(shape.sequences, 0) {}

  void run(int operations) {
    for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) {
      switch (pick(8)) {
        case 0: finish(); break;
        case 1: swap_out(); break;
        case 2: swap_in(); break;
        default: step(); break;
      }
      twins_.expect_equal();
    }
    EXPECT_GT(exhausted_, 3);
    EXPECT_GT(imported_, 3);
    EXPECT_GT(finished_, 3);
  }

 private:
  struct Swapped {
    std::vector<std::byte> bytes;
    int32_t most;
  };

  int64_t pick(int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(random_); }

  void step() {
    std::vector<int32_t> rows, tokens;
    for (int32_t row = 0; row < static_cast<int32_t>(most_.size()); ++row) {
      const int32_t more = pick(3) == 0 ? 1 + static_cast<int32_t>(pick(12)) : 1;
      if (pick(2) == 0 || most_[row] + more > twins_.host.shape().max_tokens) continue;
      rows.push_back(row);
      tokens.push_back(more);
      most_[row] += more;
    }
    if (rows.empty()) return;
    const bool bulk = pick(2) == 0;
    twins_.append(rows, tokens, random_(), bulk);
    const bool dry = twins_.host.take_exhausted();
    EXPECT_EQ(twins_.device.take_exhausted(), dry);
    EXPECT_FALSE(twins_.device.take_exhausted()) << "told once";
    if (!dry) return;
    ++exhausted_;
    EXPECT_EQ(twins_.device.audit(), std::nullopt) << "a dry pool leaves sound tables";
    EXPECT_EQ(twins_.device.free_pages(), 0);
    drop(rows);
  }
  void drop(const std::vector<int32_t>& rows) {
    twins_.release(rows);
    for (int32_t row : rows) most_[row] = 0;
  }
  void finish() {
    std::vector<int32_t> rows;
    for (int32_t row = 0; row < static_cast<int32_t>(most_.size()); ++row) {
      if (pick(4) == 0) rows.push_back(row);
    }
    std::shuffle(rows.begin(), rows.end(), random_);
    drop(rows);
    finished_ += rows.empty() ? 0 : 1;
  }
  void swap_out() {
    const auto row = static_cast<int32_t>(pick(static_cast<int64_t>(most_.size())));
    if (swapped_.size() >= 3 || most_[row] == 0) return;
    swapped_.push_back({twins_.device.export_row(row), most_[row]});
    EXPECT_TRUE(swapped_.back().bytes == twins_.host.export_row(row)) << "row " << row;
    drop({row});
  }
  void swap_in() {
    const auto row = static_cast<int32_t>(pick(static_cast<int64_t>(most_.size())));
    if (swapped_.empty()) return;
    drop({row});
    const Swapped& chosen = swapped_.back();
    const bool fits = twins_.host.import_row(row, chosen.bytes);
    EXPECT_EQ(twins_.device.import_row(row, chosen.bytes), fits);
    if (!fits) return;
    ++imported_;
    most_[row] = chosen.most;
    EXPECT_TRUE(twins_.device.export_row(row) == chosen.bytes);
    swapped_.pop_back();
  }

  Twins twins_;
  std::mt19937 random_;
  std::vector<int32_t> most_;  // slots that a row's heads have at most
  std::vector<Swapped> swapped_;
  int exhausted_ = 0, imported_ = 0, finished_ = 0;
};

class DeviceKvCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (device_count(&why) == 0) GTEST_SKIP() << "no CUDA device: " << why;
    use_device(0);
  }
};

TEST_F(DeviceKvCacheTest, does_what_the_host_cache_does) {
  for (const KvCacheShape& shape : {small_shape(true, 12), small_shape(true, 3), small_shape(true, 0), small_shape(false, 12)}) {
    SCOPED_TRACE(testing::Message() << "window " << shape.window << (shape.dmc ? "" : " plain"));
    Stress(shape, 17 + shape.window).run(400);
    if (HasFailure()) return;
  }
}

// A row from the host goes on on the device, and back.
TEST_F(DeviceKvCacheTest, rows_move_between_host_and_device) {
  Twins twins(small_shape(true, 5), kMoveBytes);
  twins.append({2, 4}, {30, 17}, 1, true);
  const std::vector<std::byte> from_host = twins.host.export_row(2), from_device = twins.device.export_row(4);
  twins.release({2, 4});
  ASSERT_TRUE(twins.host.import_row(0, from_device) && twins.device.import_row(0, from_device));
  ASSERT_TRUE(twins.host.import_row(6, from_host) && twins.device.import_row(6, from_host));
  twins.expect_equal();
  EXPECT_TRUE(twins.device.export_row(0) == twins.host.export_row(0));
  EXPECT_TRUE(twins.device.export_row(6) == twins.host.export_row(6));
  EXPECT_TRUE(twins.device.export_row(5) == twins.host.export_row(5)) << "an empty row";
}

TEST_F(DeviceKvCacheTest, a_damaged_snapshot_changes_nothing) {
  Twins twins(small_shape(true, 12));
  twins.append({1}, {20}, 3, false);
  std::vector<std::byte> bytes = twins.device.export_row(1);
  bytes[bytes.size() / 2] ^= std::byte{4};
  EXPECT_THROW(twins.device.import_row(0, bytes), SnapshotError);
  twins.expect_equal();
}

TEST_F(DeviceKvCacheTest, takes_the_memory_that_its_shape_says) {
  for (int window : {12, 0}) {
    const KvCacheShape shape = on_device(small_shape(true, window));
    DeviceStream stream;
    const DeviceKvCache cache(shape, stream.stream());
    EXPECT_EQ(cache.device_bytes(), shape.pages * shape.page_bytes() + shape.state_bytes());
  }
}

// More rows than one launch lists, and heads of many pages.
TEST_F(DeviceKvCacheTest, releases_many_rows_at_once) {
  KvCacheShape shape = small_shape(true, 2);
  shape.sequences = 300;
  shape.max_tokens = 400;
  shape.pages = 50000;
  Twins twins(shape);
  std::vector<int32_t> rows(300), tokens(300, 5);
  for (int32_t row = 0; row < 300; ++row) rows[row] = row;
  tokens[17] = 400;
  for (uint64_t round = 0; round < 3; ++round) {
    twins.append(rows, tokens, round, round != 1);
    ASSERT_FALSE(twins.host.take_exhausted() || twins.device.take_exhausted());
    twins.expect_equal();
    twins.release(rows);
    twins.expect_equal();
    EXPECT_EQ(twins.device.free_pages(), shape.pages);
  }
}

// The report of uses in a graph: replayed, it tells what is then.
TEST_F(DeviceKvCacheTest, use_can_be_captured) {
  Twins twins(small_shape(true, 12));
  const OnDevice<int32_t> list({1, -1, 3}, twins.stream());
  UseReport report(3);
  const auto cuda = static_cast<cudaStream_t>(twins.stream().cuda);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  ACCRETE_CUDA_CHECK(cudaStreamBeginCapture(cuda, cudaStreamCaptureModeThreadLocal));
  twins.device.use(list.view(), report);
  ACCRETE_CUDA_CHECK(cudaStreamEndCapture(cuda, &graph));
  ACCRETE_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  for (int32_t tokens : {9, 50}) {
    twins.append({1, 3}, {tokens, tokens}, tokens, false);
    ACCRETE_CUDA_CHECK(cudaGraphLaunch(replay, cuda));
    synchronize(twins.stream());
    EXPECT_EQ(report.row(0).slots, twins.host.use(1).slots);
    EXPECT_EQ(report.row(1).slots, 0);
    EXPECT_EQ(report.row(2).pages, twins.host.use(3).pages);
    EXPECT_EQ(report.free_pages(), twins.host.free_pages());
    EXPECT_FALSE(report.exhausted());
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
}

TEST_F(DeviceKvCacheTest, a_report_tells_of_exhaustion_once) {
  KvCacheShape shape = small_shape(true, 12);
  shape.pages = 5;
  Twins twins(shape);
  twins.append({0, 1}, {20, 20}, 1, false);
  const OnDevice<int32_t> list({0}, twins.stream());
  UseReport first(1), second(1);
  twins.device.use(list.view(), first);
  twins.device.use(list.view(), second);
  synchronize(twins.stream());
  EXPECT_TRUE(first.exhausted());
  EXPECT_FALSE(second.exhausted());
  EXPECT_FALSE(twins.device.take_exhausted());
}

// Tens of thousands of takers, of one page and of many, for fewer pages than they want and for more.
TEST_F(DeviceKvCacheTest, a_page_is_handed_out_once) {
  constexpr int64_t kTakers = 60'000;
  for (int64_t pages : {1, 7, 5'000, 59'999, 200'000}) {
    SCOPED_TRACE(pages);
    KvCacheShape shape = on_device(small_shape(false, 0));
    shape.pages = pages;
    shape.page_slots = 1;
    DeviceStream stream;
    DeviceKvCache cache(shape, stream.stream());
    const DeviceMemory ids(kTakers * 4 * sizeof(int32_t));
    take_many_cuda(cache.ref().pool, {ids.as<int32_t>(), {kTakers, 4}}, stream.stream());
    std::vector<int32_t> taken(kTakers * 4);
    copy_to_host(taken.data(), ids.data(), ids.bytes(), stream.stream());
    const int64_t free = cache.free_pages();
    bool failed = false;
    for (int64_t taker = 0; taker < kTakers; ++taker) {
      const int64_t wanted = taker % 3 == 0 ? 1 : taker % 5;
      failed |= wanted > 0 && taken[taker * 4 + wanted - 1] == kNoPage;
    }
    std::erase(taken, kNoPage);
    EXPECT_EQ(static_cast<int64_t>(taken.size()) + free, pages);
    std::sort(taken.begin(), taken.end());
    EXPECT_EQ(std::adjacent_find(taken.begin(), taken.end()), taken.end());
    EXPECT_TRUE(taken.front() >= 0 && taken.back() < pages);
    EXPECT_TRUE(!failed || free == 0);
    EXPECT_EQ(cache.take_exhausted(), pages < 100'000);  // wanted: 20,000 single ones, and 0 to 4 by each of 40,000
  }
}

}  // namespace
}  // namespace accrete::cache
#endif
