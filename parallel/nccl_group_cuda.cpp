#if defined(ACCRETE_NCCL)
#include "parallel/nccl_group.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <utility>

#include "kernels/cuda.h"
#include "kernels/device/device_memory.h"
#include "kernels/device/op_trace.h"
#include "parallel/device_pending.h"
#include "parallel/nccl_comm.h"

namespace accrete::parallel {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLook{10};  // how often the two threads look

cudaStream_t cuda_of(Stream& stream) { return static_cast<cudaStream_t>(stream.cuda); }

bool capturing(Stream& stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ACCRETE_CUDA_CHECK(cudaStreamIsCapturing(cuda_of(stream), &status));
  return status != cudaStreamCaptureStatusNone;
}

ncclDataType_t nccl_type(DType type) {
  if (type == DType::bf16) return ncclBfloat16;
  CHECK(type == DType::f32, name_of(type));
  return ncclFloat32;
}

// A call on a non-blocking communicator says so when it has begun, too.
bool begun(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

// Calls of `body` as one NCCL operation. The group is ended in any case: NCCL counts its depth per thread.
template <class Body>
ncclResult_t grouped(const Body& body) {
  ncclResult_t result = ncclGroupStart();
  if (result != ncclSuccess) return result;
  result = body();
  const ncclResult_t ended = ncclGroupEnd();
  return begun(result) ? ended : result;
}

// Sleeps for kLook; false when told to stop.
bool pause(const std::stop_token& stop) {
  std::mutex mutex;
  std::unique_lock lock(mutex);
  std::condition_variable_any woken;
  woken.wait_for(lock, stop, kLook, [] { return false; });
  return !stop.stop_requested();
}

// Two threads stand beside the step thread. The observer asks the device what is done; it may get stuck in CUDA when the device hangs.
// The watchdog never calls CUDA before it has decided that the group is broken, so it always decides.
class NcclGroup final : public DeviceGroup {
 public:
  NcclGroup(Communicator& ranks, NcclOptions options)
      : options_(std::move(options)), rank_(ranks.rank()), size_(ranks.size()), comm_(ranks, options_.timeout) {
    int device = 0;
    ACCRETE_CUDA_CHECK(cudaGetDevice(&device));
    observer_ = std::jthread([this, device](const std::stop_token& stop) { observe(stop, device); });
    watchdog_ = std::jthread([this](const std::stop_token& stop) { guard(stop); });
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool capturable() const override { return true; }

  void all_reduce_sum(const AnyView<1>& values, Stream& stream) override;
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream& stream) override;
  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream& stream) override;
  void broadcast(std::span<std::byte> bytes, int root, Stream& stream) override;
  void send(std::span<const std::byte> message, int to, Stream& stream) override;
  void recv(std::span<std::byte> message, int from, Stream& stream) override;
  void watch(const std::string& what, Stream& stream) override {
    check();
    pending_.add({what, ++sequence_, 0}, stream);
  }
  void check() override {
    const std::lock_guard lock(verdict_);
    if (!broken_.empty()) throw CommError(broken_);
  }
  void abort() override { break_group("this rank left its group (abort)"); }

 private:
  // call(communicator, stream) starts the operation. Nothing in it may wait for the device: the watchdog needs calls_ to end the group.
  template <class Call>
  void run(DeviceOperation operation, Stream& stream, const Call& call);
  void observe(const std::stop_token& stop, int device);
  void guard(const std::stop_token& stop);
  std::optional<std::string> trouble();
  void break_group(const std::string& why);

  NcclOptions options_;
  int rank_, size_;
  uint64_t sequence_ = 0;  // of the step thread
  std::mutex calls_;       // of comm_
  NcclComm comm_;
  PendingOperations pending_;
  std::mutex verdict_;  // of broken_; held for moments only
  std::string broken_;  // why; the first reason stays
  std::jthread observer_, watchdog_;  // last: they use the others
};

template <class Call>
void NcclGroup::run(DeviceOperation operation, Stream& stream, const Call& call) {
  const bool captured = capturing(stream);
  operation.sequence = ++sequence_;
  std::optional<std::string> why;
  {
    const std::lock_guard lock(calls_);
    check();
    why = comm_.settle(call(comm_.get(), cuda_of(stream)));
  }
  if (why) {
    break_group(describe(operation) + " " + *why);
    check();
  }
  // An event recorded in a capture becomes part of the graph, and no query of it is allowed: watch() stands in after a launch.
  if (!captured) pending_.add(std::move(operation), stream);
}

void NcclGroup::observe(const std::stop_token& stop, int device) {
  try {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // a query here must not break a capture elsewhere
    ACCRETE_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
    ACCRETE_CUDA_CHECK(cudaSetDevice(device));
    while (pause(stop)) pending_.retire();
  } catch (const CudaError& error) {
    break_group(fmt::format("the device failed: {}", error.what()));
  }
}

void NcclGroup::guard(const std::stop_token& stop) {
  while (pause(stop)) {
    if (const auto why = trouble()) return break_group(*why);
  }
}

std::optional<std::string> NcclGroup::trouble() {
  const auto oldest = pending_.oldest(PendingOperations::Clock::now());
  const std::string name = oldest ? describe(oldest->operation) : "NCCL, between operations,";
  // While the step thread has it, settle looks at the same errors and has a limit of its own.
  if (const std::unique_lock lock(calls_, std::try_to_lock); lock) {
    if (const auto why = comm_.error()) return name + " " + *why;
  }
  if (!oldest || oldest->waited <= options_.timeout) return std::nullopt;
  return fmt::format("{} did not finish within {:.1f} s; another rank hangs, is lost, or does not take part in it", name,
                     static_cast<double>(options_.timeout.count()) / 1000);
}

void NcclGroup::break_group(const std::string& why) {
  std::string message = fmt::format("rank {} of {}: {}", rank_, size_, why);
  {
    const std::lock_guard lock(verdict_);
    if (!broken_.empty()) return;
    broken_ = message;  // before the device's kernels end: who waits for a stream finds it there
  }
  comm_.stop_waiting();
  {
    const std::lock_guard lock(calls_);
    comm_.abandon();
  }
  if (options_.broken) options_.broken(message);
}

void NcclGroup::all_reduce_sum(const AnyView<1>& values, Stream& stream) {
  CHECK(values.stride[0] == 1 || values.shape[0] <= 1, values.stride[0]);
  const ncclDataType_t type = nccl_type(values.dtype);
  const size_t count = values.shape[0];
  if (count == 0) return check();
  const OpSpan span("all_reduce_sum", stream);
  run({"all_reduce_sum", 0, count * size_of(values.dtype)}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return ncclAllReduce(values.data, values.data, count, type, ncclSum, comm, cuda);
  });
}

void NcclGroup::all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream& stream) {
  CHECK(everyone.size() == mine.size() * size(), everyone.size(), mine.size(), size());
  if (mine.empty()) return check();
  run({"all_gather", 0, mine.size()}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return ncclAllGather(mine.data(), everyone.data(), mine.size(), ncclUint8, comm, cuda);
  });
}

void NcclGroup::gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream& stream) {
  const bool here = rank() == root;
  CHECK(root >= 0 && root < size(), root, size());
  CHECK(everyone.size() == (here ? mine.size() * size() : 0), everyone.size(), mine.size(), size());
  if (mine.empty()) return check();
  const OpSpan span("gather", stream);
  std::byte* own = here ? everyone.data() + root * mine.size() : nullptr;
  if (here && own != mine.data()) copy_on_device(own, mine.data(), mine.size(), stream);
  run({"gather", 0, mine.size()}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return grouped([&] {
      if (!here) return ncclSend(mine.data(), mine.size(), ncclUint8, root, comm, cuda);
      ncclResult_t result = ncclSuccess;
      for (int from = 0; from < size() && begun(result); ++from) {
        if (from != root) result = ncclRecv(everyone.data() + from * mine.size(), mine.size(), ncclUint8, from, comm, cuda);
      }
      return result;
    });
  });
}

void NcclGroup::broadcast(std::span<std::byte> bytes, int root, Stream& stream) {
  CHECK(root >= 0 && root < size(), root, size());
  if (bytes.empty()) return check();
  run({"broadcast", 0, bytes.size()}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return ncclBroadcast(bytes.data(), bytes.data(), bytes.size(), ncclUint8, root, comm, cuda);
  });
}

void NcclGroup::send(std::span<const std::byte> message, int to, Stream& stream) {
  CHECK(to >= 0 && to < size() && to != rank(), to, rank(), size());
  if (message.empty()) return check();
  run({fmt::format("send to rank {}", to), 0, message.size()}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return ncclSend(message.data(), message.size(), ncclUint8, to, comm, cuda);
  });
}

void NcclGroup::recv(std::span<std::byte> message, int from, Stream& stream) {
  CHECK(from >= 0 && from < size() && from != rank(), from, rank(), size());
  if (message.empty()) return check();
  run({fmt::format("recv from rank {}", from), 0, message.size()}, stream, [&](ncclComm_t comm, cudaStream_t cuda) {
    return ncclRecv(message.data(), message.size(), ncclUint8, from, comm, cuda);
  });
}

}  // namespace

std::unique_ptr<DeviceGroup> make_nccl_group(Communicator& ranks, NcclOptions options) {
  return std::make_unique<NcclGroup>(ranks, std::move(options));
}

}  // namespace accrete::parallel
#endif
