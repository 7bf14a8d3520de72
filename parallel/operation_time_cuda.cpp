#include "parallel/operation_time.h"

#include <algorithm>
#include <vector>

#include "kernels/device/device_graph.h"
#include "kernels/device/device_memory.h"

namespace accrete::parallel {
namespace {

constexpr int kWarmUps = 2;

}  // namespace

double operation_us(Communicator& ranks, Stream& stream, const TimedOperation& operation) {
  operation.enqueue();  // what is made at first use is made outside of the capture
  synchronize(stream);
  DeviceGraph graph(stream, [&] {
    for (int i = 0; i < operation.operations; ++i) operation.enqueue();
  });
  DeviceEvent begin, end;
  std::vector<float> times;
  for (int i = -kWarmUps; i < operation.launches; ++i) {
    synchronize(stream);
    ranks.barrier();
    graph.launch(stream);
    begin.record(stream);
    graph.launch(stream);
    end.record(stream);
    operation.launched();
    synchronize(stream);
    if (i >= 0) times.push_back(end.elapsed_ms_since(begin) * 1000 / static_cast<float>(operation.operations));
  }
  const auto middle = times.begin() + operation.launches / 2;
  std::nth_element(times.begin(), middle, times.end());
  std::vector<float> all(ranks.size());
  ranks.all_gather(std::as_bytes(std::span(&*middle, 1)), std::as_writable_bytes(std::span(all)));
  return *std::max_element(all.begin(), all.end());
}

}  // namespace accrete::parallel
