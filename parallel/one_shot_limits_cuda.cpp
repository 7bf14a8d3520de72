#include "parallel/one_shot_limits.h"

#include <algorithm>
#include <vector>

#include "kernels/device/device_memory.h"
#include "parallel/one_shot_memory.h"
#include "parallel/operation_time.h"

namespace accrete::parallel {
namespace {

constexpr int64_t kLeastBytes = 32 << 10;
constexpr int kLaunches = 5;

// The tensors of a sum and its norm: zeros, which sums in place stay.
class Trial {
 public:
  Trial(const OneShotTuning& tuning, Stream& stream) : tuning_(tuning), stream_(stream) {}

  // This rank's part alone.
  void take_memory() {
    for (DeviceMemory* memory : {&x_, &delta_, &y_}) *memory = DeviceMemory(tuning_.most);
    weight_ = DeviceMemory(tuning_.width * sizeof(bf16));
    for (const DeviceMemory* memory : {&x_, &delta_, &y_, &weight_}) fill_device(memory->data(), 0, memory->bytes(), stream_);
    synchronize(stream_);
  }

  TimedSize sums(int64_t rows) {
    return timed(rows, [&] { sum(rows, true); }, [&] { sum(rows, false); });
  }
  // Against the sum by whichever is the faster, and a norm.
  TimedSize norms(int64_t rows, bool one_shot_sums) {
    const auto apart = [&] {
      sum(rows, one_shot_sums);
      rms_norm_cuda(norm(rows), stream_);
    };
    return timed(rows, [&] { tuning_.one_shot.all_reduce_norm(norm(rows), stream_); }, apart);
  }

 private:
  TimedSize timed(int64_t rows, const std::function<void()>& one_shot, const std::function<void()>& other) {
    TimedSize size{rows * tuning_.width * static_cast<int64_t>(sizeof(bf16)), us(one_shot), us(other)};
    size.one_shot_us = std::min(size.one_shot_us, us(one_shot));
    size.other_us = std::min(size.other_us, us(other));
    return size;
  }
  double us(const std::function<void()>& enqueue) {
    const auto launched = [&] {
      if (tuning_.group.capturable()) tuning_.group.watch("timing sums", stream_);
    };
    const double took = operation_us(tuning_.ranks, stream_, {enqueue, launched, 10, kLaunches});
    tuning_.group.check();
    tuning_.one_shot.check();
    return took;
  }
  void sum(int64_t rows, bool one_shot) {
    const View<bf16, 1> values(delta_.as<bf16>(), {rows * tuning_.width});
    if (one_shot) tuning_.one_shot.all_reduce_sum({values, {}}, stream_);
    else tuning_.group.all_reduce_sum(values, stream_);
  }
  RmsNorm norm(int64_t rows) const {
    RmsNorm op;
    op.x = View<bf16, 2>(x_.as<bf16>(), {rows, tuning_.width});
    op.delta = View<bf16, 2>(delta_.as<bf16>(), {rows, tuning_.width});
    op.y = View<bf16, 2>(y_.as<bf16>(), {rows, tuning_.width});
    op.weight = View<bf16, 1>(weight_.as<bf16>(), {tuning_.width});
    return op;
  }

  const OneShotTuning& tuning_;
  Stream& stream_;
  DeviceMemory x_, delta_, y_, weight_;
};

}  // namespace

OneShotLimits tune_one_shot(const OneShotTuning& tuning, Stream& stream) {
  Trial trial(tuning, stream);
  agree(tuning.ranks, error_of([&] { trial.take_memory(); }), "timing");
  const int64_t row_bytes = tuning.width * static_cast<int64_t>(sizeof(bf16));
  std::vector<TimedSize> sums, norms;
  for (int64_t rows = 1; rows * row_bytes <= tuning.most; rows *= 2) {
    if (rows * row_bytes < kLeastBytes && 2 * rows * row_bytes <= tuning.most) continue;
    if (sums.empty()) trial.sums(rows);  // the clocks are up then
    sums.push_back(trial.sums(rows));
    if (tuning.norms) norms.push_back(trial.norms(rows, sums.back().one_shot_us < sums.back().other_us));
  }
  return {limit_of(sums), limit_of(norms)};
}

}  // namespace accrete::parallel
