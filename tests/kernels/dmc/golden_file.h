// The golden files of DMC's authors' own code: a small reader of their safetensors form, for tests that stand on kernels alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace accrete {

struct GoldenTensor {
  std::vector<int64_t> shape;
  std::vector<float> f32;    // one of the two is filled
  std::vector<int32_t> i32;
};

struct GoldenFile {
  std::string name;
  int64_t tokens = 0, batch = 0, query_heads = 0, kv_heads = 0, head_size = 0, window = 0;
  double rope_theta = 0.0, offset = 5.0;
  std::map<std::string, GoldenTensor> tensors;

  int64_t group() const { return query_heads / kv_heads; }
  // Element [t][b][h][d] of a [T, B, H, D] tensor.
  float at(const std::string& tensor, int64_t t, int64_t b, int64_t h, int64_t d) const;
  const GoldenTensor& tensor(const std::string& tensor_name) const;
};

// Throws std::runtime_error naming the file and what is wrong with it.
GoldenFile read_golden(const std::filesystem::path& path);

// Every *.safetensors of ACCRETE_GOLDEN_DIR, or of tests/golden/dmc; throws when there is none.
std::vector<std::filesystem::path> golden_files();

}  // namespace accrete
