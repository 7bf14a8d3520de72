#include "worker/model/shard_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "kernels/check.h"

namespace accrete::worker {

namespace {

constexpr int64_t kAlignment = 256;     // a GPU's widest access; more than a cache line
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

void ShardReader::plan_part(const Part& part, DType dtype, int64_t scale_offset) {
  const int64_t row_bytes = part.slice.columns() * static_cast<int64_t>(size_of(dtype));
  const int64_t rows_of_job = std::max<int64_t>(1, kJobBytes / std::max<int64_t>(1, row_bytes));
  for (int64_t row = part.slice.row_begin; row < part.slice.row_end; row += rows_of_job) {
    Slice rows = part.slice;
    rows.row_begin = row;
    rows.row_end = std::min(row + rows_of_job, part.slice.row_end);
    jobs_.push_back({part.name, rows, dtype, bytes_, scale_offset});
    bytes_ += jobs_.back().bytes();
    scale_offset += rows.rows() * static_cast<int64_t>(sizeof(float));
  }
}

void ShardReader::check_parts(const std::vector<Part>& parts) const {
  for (const Part& part : parts) {
    check_shape(part);
    CHECK(part.slice.columns() == parts[0].slice.columns(), part.name, part.slice.columns());
  }
}

void ShardReader::align() { bytes_ = (bytes_ + kAlignment - 1) / kAlignment * kAlignment; }

int64_t ShardReader::add(const std::vector<Part>& parts, DType dtype, int64_t padded_rows) {
  check_parts(parts);
  align();
  const int64_t begin = bytes_;
  for (const Part& part : parts) plan_part(part, dtype, 0);
  bytes_ = std::max(bytes_, begin + padded_rows * parts[0].slice.columns() * static_cast<int64_t>(size_of(dtype)));
  return begin;
}

ShardReader::Fp8Offsets ShardReader::add_fp8(const std::vector<Part>& parts) {
  check_parts(parts);
  align();
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.slice.rows();
  const Fp8Offsets offsets{bytes_ + (rows * static_cast<int64_t>(sizeof(float)) + kAlignment - 1) / kAlignment * kAlignment, bytes_};
  bytes_ = offsets.weights;
  int64_t scale_offset = offsets.scales;
  for (const Part& part : parts) {
    plan_part(part, DType::fp8, scale_offset);
    scale_offset += part.slice.rows() * static_cast<int64_t>(sizeof(float));
  }
  return offsets;
}

void ShardReader::read(std::byte* block, ThreadPool& pool,
                       const std::function<void(int64_t, int64_t)>& progress) const {
  std::mutex mutex;  // of done and error, and so that progress is called by one thread at a time
  int64_t done = 0;
  int64_t total = 0;
  for (const Job& job : jobs_) {
    total += job.bytes();
    CHECK(job.dtype != DType::fp8, job.name);
  }
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
