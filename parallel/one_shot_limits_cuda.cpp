#include "parallel/one_shot_limits.h"

#include <algorithm>

#include "kernels/device/device_memory.h"
#include "parallel/operation_time.h"

namespace accrete::parallel {
namespace {

constexpr int64_t kLeastBytes = 32 << 10;
constexpr int kLaunches = 5;

// The tensors of a sum and its norm: zeros, which sums in place stay.
class Trial {
 public:
  Trial(const OneShotTuning& tuning, Stream& stream)
      : tuning_(tuning), stream_(stream), x_(tuning.most), delta_(tuning.most), y_(tuning.most), weight_(tuning.width * sizeof(bf16)) {
    for (const DeviceMemory* memory : {&x_, &delta_, &y_, &weight_}) fill_device(memory->data(), 0, memory->bytes(), stream);
  }

  double sum_us(int64_t rows, bool one_shot) {
    return us([&] { sum(rows, one_shot); });
  }
  double fused_us(int64_t rows) {
    return us([&] { tuning_.one_shot.all_reduce_norm(norm(rows), stream_); });
  }
  double apart_us(int64_t rows, bool one_shot) {
    return us([&] {
      sum(rows, one_shot);
      rms_norm_cuda(norm(rows), stream_);
    });
  }

 private:
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
  OneShotLimits limits;
  const int64_t row_bytes = tuning.width * static_cast<int64_t>(sizeof(bf16));
  bool sums = true, norms = true;
  for (int64_t rows = 1; rows * row_bytes <= tuning.most && (sums || norms); rows *= 2) {
    if (rows * row_bytes < kLeastBytes) continue;
    sums = sums && trial.sum_us(rows, true) < trial.sum_us(rows, false);
    norms = norms && trial.fused_us(rows) < trial.apart_us(rows, sums);
    if (sums) limits.sum_bytes = rows * row_bytes;
    if (norms) limits.norm_bytes = rows * row_bytes;
  }
  return limits;
}

}  // namespace accrete::parallel
