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
  // Plans the parts one below the other (all of the same width), in a place for `padded_rows` rows if these are more; returns the byte
  // offset of the first in the block. Throws ModelError when the source lacks a tensor or has it in another shape.
  int64_t add(const std::vector<Part>& parts, DType dtype, int64_t padded_rows = 0);
  // The same rounded to fp8 with a factor for each row (kernels/gemm/quantize_fp8.h): the parts' offset and that of the f32 factors.
  // Devices that cannot round refuse to load it.
  struct Fp8Offsets {
    int64_t weights, scales;
  };
  Fp8Offsets add_fp8(const std::vector<Part>& parts);
  int64_t bytes() const { return bytes_; }

  // A run of rows of one tensor: what is read at a time.
  struct Job {
    std::string name;
    Slice slice;
    DType dtype;
    int64_t offset;
    int64_t scale_offset;  // of the first row's factor; fp8
    int64_t elements() const { return slice.rows() * slice.columns(); }
    int64_t bytes() const { return elements() * static_cast<int64_t>(size_of(dtype)); }
  };
  const std::vector<Job>& jobs() const { return jobs_; }
  const TensorSource& source() const { return source_; }

  // Reads everything planned into `block` of bytes(), host memory. progress(done, total) in bytes, one call at a time; may be empty.
  // Rethrows the first error of a read.
  void read(std::byte* block, ThreadPool& pool, const std::function<void(int64_t, int64_t)>& progress) const;

 private:
  void check_shape(const Part& part) const;
  void plan_part(const Part& part, DType dtype, int64_t scale_offset);
  void check_parts(const std::vector<Part>& parts) const;
  void align();

  const TensorSource& source_;
  std::vector<Job> jobs_;
  int64_t bytes_ = 0;
};

}  // namespace accrete::worker
