// ShardReader: plans which slices of a checkpoint make up one shard, places them in one block of memory, reads them in
// parallel.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/thread_pool.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

class ShardReader {
 public:
  explicit ShardReader(const TensorSource& source) : source_(source) {}

  struct Part {
    std::string name;
    Slice slice;
    std::pair<int64_t, int64_t> whole;  // [rows, columns] that the config wants the tensor to have
  };
  // Plans the parts one below the other (all of the same width); returns the byte offset of the first in the block.
  // Throws ModelError when the source lacks a tensor or has it in another shape.
  int64_t add(const std::vector<Part>& parts, DType dtype);
  int64_t bytes() const { return bytes_; }
  // Reads everything planned into `block` of bytes(). progress(done, total) in bytes, one call at a time; may be empty.
  // Rethrows the first error of a read.
  void read(std::byte* block, ThreadPool& pool, const std::function<void(int64_t, int64_t)>& progress) const;

 private:
  struct Job {
    std::string name;
    Slice slice;
    DType dtype;
    int64_t offset;
    int64_t bytes() const { return slice.rows() * slice.columns() * static_cast<int64_t>(size_of(dtype)); }
  };
  void check_shape(const Part& part) const;
  void plan_part(const Part& part, DType dtype);

  const TensorSource& source_;
  std::vector<Job> jobs_;
  int64_t bytes_ = 0;
};

}  // namespace accrete::worker
