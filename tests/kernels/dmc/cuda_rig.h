// A model's caches on the host and on a GPU that are told the same steps: dmc_update_cuda against dmc_update_cpu, and attention_cuda against
// float64 over the pages and queries that the GPU itself holds, so each op answers for its own roundings alone.
#pragma once

#if defined(ACCRETE_CUDA)

#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/dmc/dmc_update.h"
#include "tests/kernels/dmc/device_tables.h"

namespace accrete {

struct RigModel {
  int64_t kv_heads, group, head_size;
  DmcMode mode;
  int window = 12;
  int page_slots = 16;
  int64_t pages = 600;
  int64_t max_pages = 40;  // of a head

  int64_t query_heads() const { return kv_heads * group; }
  int64_t width() const { return (query_heads() + 2 * kv_heads) * head_size; }  // of a row of qkv
};

using RigStep = std::vector<std::pair<int32_t, int32_t>>;  // (row, tokens); decodes first

// Fails the test where host and GPU differ.
class Rig {
 public:
  static constexpr int kRows = 6;
  static constexpr int kLayer = 1;

  explicit Rig(const RigModel& m);
  // From now on the GPU's part of a step is captured as a graph, behind a memset, and the graph is run.
  void capture() { captured_ = true; }
  // `padding` sequences of one token follow those of the step: decodes when all of the step are.
  void run(const RigStep& step, int padding = 0);
  // The GPU's part alone, unchecked: for steps that the host takes for a bug.
  void run_unchecked(const RigStep& step) { run_gpu(make_input(step, 0)); }
  // Every slot's entry in the GPU's pages, head by head.
  std::vector<uint16_t> entries();

  DeviceTables& gpu() { return gpu_; }

 private:
  template <class T>
  using Memory = CudaDevice::Memory<T>;

  // What a step is told. Its last `padding` sequences have no row; the host is not told of them.
  struct Input {
    std::vector<int32_t> row, begin{0}, position, sequence;
    std::vector<uint64_t> key;
    int64_t decodes = 0, most = 0, padding = 0;
    std::vector<float> qkv, cos, sin;
    int64_t tokens() const { return static_cast<int64_t>(position.size()); }
    int64_t sequences() const { return static_cast<int64_t>(row.size()); }
  };
  // What it leaves, of all tokens of the step.
  template <class T>
  struct Output {
    std::vector<T> q, own_k, own_v;
    std::vector<std::vector<T>> attended;  // with each share of the prompts
    std::vector<int32_t> own_slot;
  };

  Input make_input(const RigStep& step, int padding);
  void add_sequence(Input& input, int32_t row, int32_t tokens);
  void add_random_qkv(Input& input);
  void run_host(const Input& input);
  void run_gpu(const Input& input);
  void check_update(const Input& input);
  void check_tables();
  void check_attention(const Input& input, const std::vector<bf16>& attended);
  std::vector<int> shares_of(const Input& input);

  RigModel model_;
  DmcParams dmc_;
  CacheTables tables_;
  DeviceTables gpu_;
  std::vector<int32_t> next_;  // position of each row's next token
  std::vector<double> rates_, inv_freq_;
  std::optional<Memory<char>> plan_memory_;
  DecodePlan plan_;
  CpuDevice cpu_;
  CudaDevice cuda_;
  std::mt19937 random_{7};
  bool captured_ = false;
  int mixed_steps_ = 0;
  Output<float> expected_;
  Output<bf16> got_;
};

}  // namespace accrete

#endif
