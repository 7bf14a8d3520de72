#include "kernels/device/tensor_map.h"

#include "kernels/check.h"
#include "kernels/cuda.h"

namespace accrete {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's, without linking it: a machine without one runs the CPU's ops.
Encode find_encode() {
  constexpr unsigned kSince = 12000;  // CUDA 12.0
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  ACCRETE_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, kSince, cudaEnableDefault, &result));
  if (result != cudaDriverEntryPointSuccess) throw CudaError("the driver has no tensor maps; install one for CUDA 12.0 or newer");
  return reinterpret_cast<Encode>(found);
}

}  // namespace

CUtensorMap tensor_map(const TensorBoxes& boxes) {
  static const Encode encode = find_encode();
  constexpr std::array<uint32_t, 4> kEvery{1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, boxes.size.size(), const_cast<void*>(boxes.data), boxes.size.data(), boxes.step.data(),
                                 boxes.box.data(), kEvery.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                 CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  CHECK(result == CUDA_SUCCESS, result, boxes.size[1], boxes.size[2], boxes.size[3], boxes.step[0], boxes.step[1], boxes.step[2]);
  return map;
}

}  // namespace accrete
