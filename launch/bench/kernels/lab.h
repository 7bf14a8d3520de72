// The lab: one GPU, its measured limits, and the clock that all kernel measurements share. Owned by run_kernel_bench, used by one thread.
// In builds with CUDA.
#pragma once

#include <functional>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "kernels/device/device_graph.h"
#include "kernels/device/device_memory.h"
#include "kernels/gemm/gemm_plans.h"
#include "launch/bench/kernels/device_array.h"
#include "launch/bench/kernels/kernel_bench.h"
#include "launch/bench/kernels/random_cache.h"
#include "launch/bench/kernels/table.h"

namespace accrete::launch {

// A launch to be timed, on as many sets of buffers as the caller has: `turns` sets larger together than the level-two cache keep it from
// serving what a step would find in memory.
struct Work {
  std::function<void(int64_t turn)> launch;  // enqueues the launch on set `turn`; is called for a graph's capture too
  int64_t turns = 1;
  std::function<void()> reset = {};  // for launches that change state: enqueued before every replay, which then has each turn once
  AnyView<1> output = {};            // poisoned before, and must hold no NaN or infinity afterwards; data null: not looked at
};

class Lab {
 public:
  explicit Lab(const KernelBenchOptions& options);
  ~Lab();
  Lab(const Lab&) = delete;
  Lab& operator=(const Lab&) = delete;

  Stream& stream() { return stream_.stream(); }
  GemmPlans& plans() { return plans_; }
  const DeviceInfo& device() const { return device_; }
  const KernelReport& report() const { return report_; }
  bool quick() const { return quick_; }

  // Whether the filter lets this one pass: ask before building its buffers.
  bool wants(const Label& label) const;
  // Sets of `bytes` each that are larger together than twice the level-two cache, between 1 and `most`.
  int64_t turns_past_cache(double bytes, int64_t most) const;
  // Median over at least ten replays of a graph of launches, each begun with a level-two cache that holds something else.
  Timing time(const Work& work);
  // Keeps a row and prints it. The reference holds until the next one.
  const Row& add(Row row);
  const Row& record(const Label& label, const Cost& cost, const Work& work) { return add({label, cost, time(work), {}}); }
  void fail(const std::string& what);

  void set_ceilings(const Ceilings& ceilings) { report_.ceilings = ceilings; }
  // The pages that all caches of the bench lie in, made when first wanted.
  RandomPages& pages();

 private:
  double round_us(DeviceGraph& graph, const Work& work);
  std::vector<double> replay(DeviceGraph& graph, const Work& work, int count);
  void check_written(const AnyView<1>& output);
  void empty_cache();

  DeviceInfo device_;
  bool quick_;
  std::regex filter_;
  DeviceStream stream_;
  GemmPlans plans_;
  DeviceArray<uint32_t> other_;   // read to empty the level-two cache
  DeviceArray<uint32_t> parity_;  // [1]
  std::unique_ptr<RandomPages> pages_;
  KernelReport report_;
};

}  // namespace accrete::launch
