#include "launch/bench/decode/copy_rate.h"

#if defined(ACCRETE_CUDA)
#include <algorithm>
#include <vector>

#include "kernels/device/device_memory.h"
#endif

namespace accrete::launch {

#if defined(ACCRETE_CUDA)
double measured_copy_rate(std::string& gpu) {
  constexpr size_t kBytes = size_t{2} << 30;
  constexpr int kRounds = 11;
  gpu = use_device(0).name;
  const DeviceMemory from(kBytes), to(kBytes);
  DeviceStream stream;
  fill_device(from.data(), 0x5a, kBytes, stream.stream());
  std::vector<float> times;
  for (int i = 0; i < kRounds; ++i) {
    DeviceEvent begin, end;
    begin.record(stream.stream());
    copy_on_device(to.data(), from.data(), kBytes, stream.stream());
    end.record(stream.stream());
    end.wait();
    times.push_back(end.elapsed_ms_since(begin));
  }
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return 2.0 * static_cast<double>(kBytes) / (1e-3 * times[kRounds / 2]);
}
#else
double measured_copy_rate(std::string&) { return 0.0; }
#endif

}  // namespace accrete::launch
