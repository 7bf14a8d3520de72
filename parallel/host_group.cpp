#include "parallel/host_group.h"

#include "kernels/check.h"

namespace accrete::parallel {
namespace {

constexpr int kMessageTag = 101;  // of device memory among the communicator's other messages

class HostGroup : public DeviceGroup {
 public:
  explicit HostGroup(Communicator& ranks) : ranks_(ranks) {}

  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  bool capturable() const override { return false; }
  void all_reduce_sum(const AnyView<1>& values, Stream&) override {
    const View<float, 1> floats = values.as<float>();
    CHECK(floats.stride[0] == 1 || floats.shape[0] <= 1, floats.stride[0]);
    ranks_.all_reduce_sum({floats.data, static_cast<size_t>(floats.shape[0])});
  }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream&) override { ranks_.all_gather(mine, everyone); }
  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream&) override { ranks_.gather(mine, everyone, root); }
  void broadcast(std::span<std::byte> bytes, int root, Stream&) override { ranks_.broadcast(bytes, root); }
  void send(std::span<const std::byte> message, int to, Stream&) override { ranks_.send(message, to, kMessageTag); }
  void recv(std::span<std::byte> message, int from, Stream&) override { ranks_.recv_into(message, from, kMessageTag); }
  void watch(const std::string&, Stream&) override {}
  void check() override {}
  void abort() override { ranks_.abort(1, "a rank left its group"); }

 private:
  Communicator& ranks_;
};

}  // namespace

std::unique_ptr<DeviceGroup> make_host_group(Communicator& ranks) { return std::make_unique<HostGroup>(ranks); }

}  // namespace accrete::parallel
