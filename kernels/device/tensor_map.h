// Tensor maps: what the copy engine must know of a tensor in device memory to copy boxes of it into shared memory. Plain values of 128
// bytes that kernels take as parameters; making one is arithmetic on the host. In builds with CUDA.
#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

namespace accrete {

// bf16; dimension 0 is contiguous and a box has 64 elements of it, which land as 128 bytes, 16-byte pieces swizzled by the address's
// multiple of 128 (piece i of row r at i ^ r % 8 where shared memory is aligned to 1024).
struct TensorBoxes {
  const void* data = nullptr;      // at a multiple of 16 bytes
  std::array<uint64_t, 4> size{};  // in elements
  std::array<uint64_t, 3> step{};  // of dimensions 1 to 3, in bytes, multiples of 16
  std::array<uint32_t, 4> box{};   // in elements, at most 256
};

// Throws CudaError when the driver does not know tensor maps; a CHECK fails for what they cannot say.
CUtensorMap tensor_map(const TensorBoxes& boxes);

}  // namespace accrete
