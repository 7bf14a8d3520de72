#include "parallel/staged_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "kernels/device/device_memory.h"
#include "kernels/device/op_trace.h"

namespace accrete::parallel {
namespace {

constexpr int kMessageTag = 1;  // the communicator is the group's own

class StagedGroup : public DeviceGroup {
 public:
  StagedGroup(std::unique_ptr<Communicator> ranks, size_t staging_bytes)
      : ranks_(std::move(ranks)),
        piece_(staging_bytes),
        mine_(staging_bytes),
        everyone_(staging_bytes * ranks_->size()),
        floats_(staging_bytes / sizeof(bf16)) {
    CHECK(staging_bytes > 0 && staging_bytes % sizeof(float) == 0, staging_bytes);
  }

  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  bool capturable() const override { return false; }

  void all_reduce_sum(const AnyView<1>& values, Stream& stream) override;
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream& stream) override;
  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream& stream) override;
  void broadcast(std::span<std::byte> bytes, int root, Stream& stream) override;
  void send(std::span<const std::byte> message, int to, Stream& stream) override;
  void recv(std::span<std::byte> message, int from, Stream& stream) override;
  void watch(const std::string&, Stream&) override { check(); }
  void check() override {
    if (!broken_.empty()) throw CommError(broken_);
    if (left_.load()) throw CommError(fmt::format("rank {} of {}: this rank left its group (abort)", rank(), size()));
  }
  void abort() override {
    if (!left_.exchange(true)) ranks_->abort(1, fmt::format("rank {} left its group of device memory", rank()));
  }

 private:
  // One operation on `bytes` in pieces: work(offset, size of the piece). A lost rank breaks the group.
  void in_pieces(const char* name, size_t bytes, const std::function<void(size_t, size_t)>& work);
  // One piece of `mine` to the host, where it lies in mine_.
  std::span<const std::byte> fetch(const std::byte* from, size_t bytes, Stream& stream) {
    copy_to_host(mine_.data(), from, bytes, stream);
    synchronize(stream);
    return {mine_.as<const std::byte>(), bytes};
  }
  void sum_bf16(size_t count);
  // Rank r's piece goes from everyone_ to everyone[r * whole + offset]. Returns when the staging memory may be written again.
  void spread(std::byte* everyone, size_t whole, std::pair<size_t, size_t> piece, Stream& stream);

  std::unique_ptr<Communicator> ranks_;
  size_t piece_;
  PinnedMemory mine_, everyone_;
  std::vector<float> floats_;  // a piece of bf16 as float32
  std::string broken_;         // why; of the step thread
  std::atomic<bool> left_{false};
  int64_t operations_ = 0;
};

void StagedGroup::in_pieces(const char* name, size_t bytes, const std::function<void(size_t, size_t)>& work) {
  check();
  ++operations_;
  try {
    for (size_t offset = 0; offset < bytes; offset += piece_) work(offset, std::min(piece_, bytes - offset));
  } catch (const CommError& error) {
    broken_ = fmt::format("rank {} of {}: {} (operation {}, {} bytes) failed: {}", rank(), size(), name, operations_, bytes, error.what());
    throw CommError(broken_);
  }
}

void StagedGroup::sum_bf16(size_t count) {
  bf16* staged = mine_.as<bf16>();
  std::transform(staged, staged + count, floats_.begin(), [](bf16 value) { return static_cast<float>(value); });
  ranks_->all_reduce_sum({floats_.data(), count});
  std::transform(floats_.begin(), floats_.begin() + static_cast<std::ptrdiff_t>(count), staged, [](float value) { return bf16(value); });
}

void StagedGroup::all_reduce_sum(const AnyView<1>& values, Stream& stream) {
  CHECK(values.dtype == DType::f32 || values.dtype == DType::bf16, name_of(values.dtype));
  CHECK(values.stride[0] == 1 || values.shape[0] <= 1, values.stride[0]);
  auto* data = static_cast<std::byte*>(values.data);
  const OpSpan span("all_reduce_sum", stream);
  in_pieces("all_reduce_sum", values.shape[0] * size_of(values.dtype), [&](size_t offset, size_t bytes) {
    fetch(data + offset, bytes, stream);
    if (values.dtype == DType::bf16) sum_bf16(bytes / sizeof(bf16));
    else ranks_->all_reduce_sum({mine_.as<float>(), bytes / sizeof(float)});
    copy_to_device(data + offset, mine_.data(), bytes, stream);
    synchronize(stream);  // mine_ is written again by the next piece
  });
}

void StagedGroup::spread(std::byte* everyone, size_t whole, std::pair<size_t, size_t> piece, Stream& stream) {
  const auto [offset, bytes] = piece;
  for (int r = 0; r < size(); ++r) copy_to_device(everyone + r * whole + offset, everyone_.as<std::byte>() + r * bytes, bytes, stream);
  synchronize(stream);
}

void StagedGroup::all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream& stream) {
  CHECK(everyone.size() == mine.size() * size(), everyone.size(), mine.size(), size());
  in_pieces("all_gather", mine.size(), [&](size_t offset, size_t bytes) {
    ranks_->all_gather(fetch(mine.data() + offset, bytes, stream), {everyone_.as<std::byte>(), bytes * size()});
    spread(everyone.data(), mine.size(), {offset, bytes}, stream);
  });
}

void StagedGroup::gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream& stream) {
  const bool here = rank() == root;
  CHECK(everyone.size() == (here ? mine.size() * size() : 0), everyone.size(), mine.size(), size());
  const OpSpan span("gather", stream);
  in_pieces("gather", mine.size(), [&](size_t offset, size_t bytes) {
    ranks_->gather(fetch(mine.data() + offset, bytes, stream), {everyone_.as<std::byte>(), here ? bytes * size() : 0}, root);
    if (here) spread(everyone.data(), mine.size(), {offset, bytes}, stream);
  });
}

void StagedGroup::broadcast(std::span<std::byte> bytes, int root, Stream& stream) {
  CHECK(root >= 0 && root < size(), root, size());
  in_pieces("broadcast", bytes.size(), [&](size_t offset, size_t count) {
    if (rank() == root) fetch(bytes.data() + offset, count, stream);
    ranks_->broadcast({mine_.as<std::byte>(), count}, root);
    if (rank() != root) copy_to_device(bytes.data() + offset, mine_.data(), count, stream);
    synchronize(stream);  // mine_ is written again by the next piece
  });
}

void StagedGroup::send(std::span<const std::byte> message, int to, Stream& stream) {
  CHECK(to >= 0 && to < size() && to != rank(), to, rank(), size());
  in_pieces("send", message.size(), [&](size_t offset, size_t bytes) {
    ranks_->send(fetch(message.data() + offset, bytes, stream), to, kMessageTag);
  });
}

void StagedGroup::recv(std::span<std::byte> message, int from, Stream& stream) {
  CHECK(from >= 0 && from < size() && from != rank(), from, rank(), size());
  in_pieces("recv", message.size(), [&](size_t offset, size_t bytes) {
    ranks_->recv_into({mine_.as<std::byte>(), bytes}, from, kMessageTag);
    copy_to_device(message.data() + offset, mine_.data(), bytes, stream);
    synchronize(stream);
  });
}

}  // namespace

std::unique_ptr<DeviceGroup> make_staged_group(std::unique_ptr<Communicator> ranks, size_t staging_bytes) {
  return std::make_unique<StagedGroup>(std::move(ranks), staging_bytes);
}

}  // namespace accrete::parallel
