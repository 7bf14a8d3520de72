// The limits that every figure is held against: memory copied, memory read, large products.
#include <algorithm>
#include <span>

#include "kernels/device/read_pass.h"
#include "kernels/gemm/linear.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/lab.h"
#include "launch/bench/record.h"

namespace accrete::launch {
namespace {

constexpr int64_t kPassBytes = int64_t{4} << 30;
constexpr int kCopies = 12;
constexpr int64_t kSide = 8192;  // of the square product: 1.1 TFLOP

// Straight from the stream, as copies are made elsewhere: a graph might have another engine do it.
double copy_gb_s(Lab& lab) {
  const int64_t words = kPassBytes / static_cast<int64_t>(sizeof(float));
  const auto from = random_array<float>(words, 1, 1.0f, lab.stream()), to = random_array<float>(words, 2, 1.0f, lab.stream());
  std::vector<double> times;
  for (int i = 0; i < kCopies; ++i) {
    DeviceEvent start, stop;
    start.record(lab.stream());
    copy_on_device(to.data(), from.data(), kPassBytes, lab.stream());
    stop.record(lab.stream());
    stop.wait();
    times.push_back(static_cast<double>(stop.elapsed_ms_since(start)) * 1e3);
  }
  std::sort(times.begin(), times.end());
  return 2.0 * kPassBytes / percentile(times, 50) * 1e-3;
}

double read_gb_s(Lab& lab) {
  const auto from = random_array<float>(kPassBytes / static_cast<int64_t>(sizeof(float)), 3, 1.0f, lab.stream());
  const DeviceArray<uint32_t> parity(std::vector<uint32_t>{0}, lab.stream());
  const View<const uint32_t, 1> words(reinterpret_cast<const uint32_t*>(from.data()), {from.size()});
  const Timing timing = lab.time({.launch = [&](int64_t) { read_pass_cuda({words, parity.flat()}, lab.stream()); }});
  return kPassBytes / timing.median_us * 1e-3;
}

template <class T>
double product_tflop_s(Lab& lab) {
  const auto x = random_array<T>(kSide * kSide, 4, 1.0f, lab.stream()), w = random_array<T>(kSide * kSide, 5, 1.0f, lab.stream());
  const DeviceArray<bf16> y(kSide * kSide);
  const GemmOperands product{x.template view<2>({kSide, kSide}), w.template view<2>({kSide, kSide}), y.template view<2>({kSide, kSide})};
  const GemmToTune to_tune{{product.w}, DType::bf16};
  lab.plans().tune(std::span(&to_tune, 1), std::span(&kSide, 1), lab.stream());
  const Timing timing = lab.time({.launch = [&](int64_t) { lab.plans().multiply(product, lab.stream()); }, .output = y.flat()});
  return 2.0 * kSide * kSide * kSide / timing.median_us * 1e-6;
}

}  // namespace

void measure_ceilings(Lab& lab) {
  Ceilings ceilings;
  ceilings.bf16_tflop_s = product_tflop_s<bf16>(lab);
  ceilings.fp8_tflop_s = product_tflop_s<fp8>(lab);
  ceilings.copy_gb_s = copy_gb_s(lab);
  ceilings.read_gb_s = read_gb_s(lab);
  lab.set_ceilings(ceilings);
}

}  // namespace accrete::launch
