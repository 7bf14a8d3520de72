#include "worker/model/shard_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "kernels/check.h"

namespace accrete::worker {

namespace {

constexpr int64_t kAlignment = 64;      // a cache line, and the widest vector register
constexpr int64_t kJobBytes = 4 << 20;  // small enough to spread over threads, large enough to read ahead

}  // namespace

void ShardReader::check_shape(const Part& part) const {
  if (!source_.has(part.name)) throw ModelError(fmt::format("{}: tensor {} is missing", source_.describe(), part.name));
  const auto shape = source_.shape(part.name);
  if (shape != part.whole) {
    throw ModelError(fmt::format("{}: tensor {} is [{}, {}], but the model's config makes it [{}, {}]",
                                 source_.describe(), part.name, shape.first, shape.second, part.whole.first,
                                 part.whole.second));
  }
}

void ShardReader::plan_part(const Part& part, DType dtype) {
  const int64_t row_bytes = part.slice.columns() * static_cast<int64_t>(size_of(dtype));
  const int64_t rows_of_job = std::max<int64_t>(1, kJobBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t row = part.slice.row_begin; row < part.slice.row_end; row += rows_of_job) {
    Slice rows = part.slice;
    rows.row_begin = row;
    rows.row_end = std::min(row + rows_of_job, part.slice.row_end);
    jobs_.push_back({part.name, rows, dtype, bytes_});
    bytes_ += jobs_.back().bytes();
  }
}

int64_t ShardReader::add(const std::vector<Part>& parts, DType dtype) {
  bytes_ = (bytes_ + kAlignment - 1) / kAlignment * kAlignment;
  const int64_t begin = bytes_;
  for (const Part& part : parts) {
    check_shape(part);
    CHECK(part.slice.columns() == parts[0].slice.columns(), part.name, part.slice.columns());
    plan_part(part, dtype);
  }
  return begin;
}

void ShardReader::read(std::byte* block, ThreadPool& pool,
                       const std::function<void(int64_t, int64_t)>& progress) const {
  std::mutex mutex;  // of done and error, and so that progress is called by one thread at a time
  int64_t done = 0;
  int64_t total = 0;
  for (const Job& job : jobs_) total += job.bytes();
  std::exception_ptr error;
  std::atomic<bool> failed{false};  // relaxed: only saves work, the error itself is read after the join
  pool.run(static_cast<int64_t>(jobs_.size()), [&](int64_t index) {
    if (failed.load(std::memory_order_relaxed)) return;
    const Job& job = jobs_[index];
    try {
      source_.read(job.name, job.slice, job.dtype, block + job.offset);
      std::lock_guard lock(mutex);
      done += job.bytes();
      if (progress) progress(done, total);
    } catch (...) {
      std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      failed.store(true, std::memory_order_relaxed);
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace accrete::worker
