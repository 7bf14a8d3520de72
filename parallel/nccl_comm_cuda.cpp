#if defined(ACCRETE_NCCL)
#include "parallel/nccl_comm.h"

#include <fmt/format.h>

#include <future>
#include <thread>
#include <utility>

#include "kernels/cuda.h"
#include "parallel/polite_wait.h"

namespace accrete::parallel {
namespace {

using std::chrono::milliseconds;
constexpr Patience kPatience{std::chrono::microseconds(200)};
constexpr milliseconds kOrderlyEnd{5000};  // to say goodbye to peers that may be gone
constexpr milliseconds kAbortEnd{1000};    // the kernels end at once; NCCL's memory waits for graphs that still name it

// The group's id with whether rank 0 could make one: else the others would wait for it.
struct SharedId {
  ncclUniqueId id{};
  ncclResult_t made = ncclSuccess;
};

}  // namespace

NcclComm::NcclComm(Communicator& ranks, milliseconds timeout) : timeout_(timeout) {
  ACCRETE_CUDA_CHECK(cudaGetDevice(&device_));
  SharedId shared;
  if (ranks.rank() == 0) shared.made = ncclGetUniqueId(&shared.id);
  ranks.broadcast(std::as_writable_bytes(std::span(&shared, 1)), 0);
  const std::string who = fmt::format("rank {} of {}: NCCL's group ", ranks.rank(), ranks.size());
  if (shared.made != ncclSuccess) {
    throw CommError(who + fmt::format("has no id: {}; check NCCL_SOCKET_IFNAME and the network interfaces of rank 0's host", text(shared.made)));
  }
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result = settled(ncclCommInitRankConfig(&comm_, ranks.size(), shared.id, ranks.rank(), &config), timeout_);
  if (result == ncclSuccess) return;
  const std::string why = result == ncclInProgress ? fmt::format("did not form within {:.1f} s", static_cast<double>(timeout_.count()) / 1000)
                                                   : "did not form: " + text(result);
  abandon();
  throw CommError(who + why + "; each rank needs a GPU of its own and a way to the others (NCCL_SOCKET_IFNAME), NCCL_DEBUG=WARN says more");
}

NcclComm::~NcclComm() {
  if (!comm_) return;
  if (settled(ncclCommFinalize(comm_), kOrderlyEnd) == ncclSuccess) finish(ncclCommDestroy, kOrderlyEnd);
  else abandon();
}

ncclResult_t NcclComm::settled(ncclResult_t result, milliseconds limit) const {
  const auto end = std::chrono::steady_clock::now() + limit;
  PoliteWait wait(kPatience);
  while (result == ncclInProgress && comm_ && !stopped_.load(std::memory_order_relaxed) && std::chrono::steady_clock::now() < end) {
    if (ncclCommGetAsyncError(comm_, &result) != ncclSuccess) return ncclInternalError;
    if (result == ncclInProgress) wait.pause();
  }
  return result;
}

std::optional<std::string> NcclComm::settle(ncclResult_t result) {
  result = settled(result, timeout_);
  if (result == ncclSuccess) return std::nullopt;
  if (result == ncclInProgress) return fmt::format("could not be started within {:.1f} s", static_cast<double>(timeout_.count()) / 1000);
  return "failed: " + text(result);
}

std::optional<std::string> NcclComm::error() const {
  if (!comm_) return "is gone";
  ncclResult_t result = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
  if (asked != ncclSuccess) result = asked;
  if (result == ncclSuccess || result == ncclInProgress) return std::nullopt;
  return "failed: " + text(result);
}

std::string NcclComm::text(ncclResult_t result) const {
  const char* last = comm_ ? ncclGetLastError(comm_) : "";
  return fmt::format("{}{}{}", ncclGetErrorString(result), last && *last ? ", " : "", last ? last : "");
}

void NcclComm::abandon() {
  if (comm_) finish(ncclCommAbort, kAbortEnd);
}

void NcclComm::finish(ncclResult_t (*end)(ncclComm_t), milliseconds limit) {
  std::promise<void> ended;
  auto waiting = ended.get_future();
  std::thread([end, comm = std::exchange(comm_, nullptr), device = device_, ended = std::move(ended)]() mutable {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;  // another thread's capture is none of ours
    cudaThreadExchangeStreamCaptureMode(&mode);
    cudaSetDevice(device);
    end(comm);
    ended.set_value();
  }).detach();
  waiting.wait_for(limit);
}

}  // namespace accrete::parallel
#endif
