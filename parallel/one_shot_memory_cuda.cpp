#include "parallel/one_shot_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cuda.h"
#include "kernels/device/device_memory.h"

namespace accrete::parallel {
namespace {

// Smaller allocations share a block of this size, which a handle would export as a whole and whose start it would mean.
constexpr size_t kBlockBytes = size_t{2} << 20;

// Tells processes apart, also those of different PID namespaces. The same for all threads of a process.
uint64_t process_token() {
  static const uint64_t token = [] {
    std::random_device random;
    return uint64_t{random()} << 32 | random();
  }();
  return token;
}

// What a rank's memory begins with until its first operation: proof that a mapping shows that rank's memory.
struct Mark {
  uint64_t process;
  uint64_t rank;
};

std::string failed(const char* doing, cudaError_t result) {
  cudaGetLastError();  // not an error of the next call
  return fmt::format("{} failed: {} ({})", doing, cudaGetErrorString(result), cudaGetErrorName(result));
}

}  // namespace

std::string error_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const CudaError& error) {
    return error.what();
  }
  return "";
}

void agree(Communicator& ranks, const std::string& error, const char* doing) {
  constexpr size_t kText = 400;
  std::vector<char> mine(kText), everyone(kText * ranks.size());
  std::memcpy(mine.data(), error.data(), std::min(error.size(), kText - 1));
  ranks.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(everyone)));
  for (int r = 0; r < ranks.size(); ++r) {
    const char* text = everyone.data() + r * kText;
    if (*text) throw CommError(fmt::format("rank {} of {}: {} of the one-shot all-reduce: rank {}: {}", ranks.rank(), ranks.size(), doing, r, text));
  }
}

struct OneShotMemory::Card {
  char host[256];
  uint64_t process;
  int device;
  int multiprocessors;
  char gpu[32];  // its PCI address: processes may number GPUs differently
  void* base;  // of use to ranks of the same process
  cudaIpcMemHandle_t handle;
  char no_handle[128];  // why there is none
};

OneShotMemory::OneShotMemory(Communicator& ranks, size_t capacity, const std::string& error)
    : rank_(ranks.rank()), size_(ranks.size()), capacity_(capacity) {
  CHECK(size_ <= kOneShotRanks, size_);
  CHECK(capacity > 0 && capacity % kOneShotAlignment == 0, capacity);
  try {
    share(ranks, error);
  } catch (const CommError&) {
    unmap();
    give_back(ranks);
    throw;
  }
}

void OneShotMemory::share(Communicator& ranks, const std::string& before) {
  Card own{};
  agree(ranks, before.empty() ? fill_card(own) : before, "memory");
  std::vector<Card> cards(size_);
  ranks.all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(cards)));
  const auto on_gpu_of = [&](const Card& one) {
    return std::count_if(cards.begin(), cards.end(), [&](const Card& card) {
      return std::strcmp(card.host, one.host) == 0 && std::strcmp(card.gpu, one.gpu) == 0;
    });
  };
  const auto sharing = on_gpu_of(own);
  gpus_shared_ = std::any_of(cards.begin(), cards.end(), [&](const Card& card) { return on_gpu_of(card) > 1; });
  multiprocessors_ = own.multiprocessors;
  for (const Card& card : cards) multiprocessors_ = std::min(multiprocessors_, card.multiprocessors);
  std::string error;
  if (sharing > kOneShotRanksOnGpu) error = fmt::format("{} ranks share GPU {}, at most {} can", sharing, own.gpu, kOneShotRanksOnGpu);
  for (int r = 0; r < size_ && error.empty(); ++r) {
    if (r != rank_) error = map(own, cards[r], r);
  }
  agree(ranks, error, "mapping");
}

// After a failure that all ranks have been told of. Nobody maps the memory once all have come here; where one is lost it stays.
void OneShotMemory::give_back(Communicator& ranks) {
  try {
    ranks.barrier();
  } catch (const CommError&) {
    return;
  }
  if (base_[rank_]) cudaFree(base_[rank_]);
  base_[rank_] = nullptr;
}

OneShotMemory::~OneShotMemory() {
  unmap();
  if (released_ && base_[rank_]) cudaFree(base_[rank_]);  // else it stays: a rank that still maps it may touch it
}

// Allocates, clears, marks and exports the own memory.
std::string OneShotMemory::fill_card(Card& card) {
  const size_t bytes = (2 * capacity_ + kOneShotFlagBytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  cudaError_t result = cudaMalloc(&base_[rank_], bytes);
  if (result != cudaSuccess) return failed("cudaMalloc", result);
  const Mark mark{process_token(), static_cast<uint64_t>(rank_)};
  result = cudaMemset(base_[rank_], 0, bytes);
  if (result == cudaSuccess) result = cudaMemcpy(base_[rank_], &mark, sizeof mark, cudaMemcpyHostToDevice);
  if (result == cudaSuccess) result = cudaDeviceSynchronize();  // cudaMemset does not wait for the device
  if (result == cudaSuccess) result = cudaGetDevice(&card.device);
  if (result == cudaSuccess) result = cudaDeviceGetPCIBusId(card.gpu, sizeof card.gpu, card.device);
  if (result == cudaSuccess) result = cudaDeviceGetAttribute(&card.multiprocessors, cudaDevAttrMultiProcessorCount, card.device);
  if (result != cudaSuccess) return failed("clearing it", result);
  gethostname(card.host, sizeof card.host - 1);
  card.process = process_token();
  card.base = base_[rank_];
  result = cudaIpcGetMemHandle(&card.handle, base_[rank_]);
  if (result != cudaSuccess) {
    const std::string why = failed("cudaIpcGetMemHandle", result);
    std::memcpy(card.no_handle, why.data(), std::min(why.size(), sizeof card.no_handle - 1));
  }
  return "";
}

// Why kernels on the own GPU cannot read the other's memory, as far as this process sees both.
std::string OneShotMemory::unreadable(const Card& own, const Card& card) const {
  int device = 0, can = 1;
  if (cudaDeviceGetByPCIBusId(&device, card.gpu) == cudaSuccess && device != own.device) cudaDeviceCanAccessPeer(&can, own.device, device);
  cudaGetLastError();  // a GPU that this process does not see: opening its memory will tell
  return can ? "" : fmt::format("GPU {} cannot read the memory of GPU {} (nvidia-smi topo -p2p r)", own.gpu, card.gpu);
}

std::string OneShotMemory::map(const Card& own, const Card& card, int rank) {
  if (std::strcmp(own.host, card.host) != 0) return fmt::format("rank {} runs on another host ({}, here {})", rank, card.host, own.host);
  if (const std::string why = unreadable(own, card); !why.empty()) return fmt::format("rank {}: {}", rank, why);
  if (own.process == card.process) {  // a process cannot open its own handles, and need not
    if (own.device != card.device) {
      const cudaError_t result = cudaDeviceEnablePeerAccess(card.device, 0);
      if (result == cudaErrorPeerAccessAlreadyEnabled) static_cast<void>(cudaGetLastError());  // else the next check would find it
      else if (result != cudaSuccess) return fmt::format("rank {}: {}", rank, failed("cudaDeviceEnablePeerAccess", result));
    }
    base_[rank] = card.base;
    return verify(card, rank);
  }
  if (*card.no_handle) return fmt::format("rank {} cannot share its memory: {}", rank, card.no_handle);
  const cudaError_t result = cudaIpcOpenMemHandle(&base_[rank], card.handle, cudaIpcMemLazyEnablePeerAccess);
  if (result != cudaSuccess) {
    base_[rank] = nullptr;
    return fmt::format("rank {}: {}; the GPUs must see each other (nvidia-smi topo -p2p r) and all be visible to each process", rank,
                       failed("cudaIpcOpenMemHandle", result));
  }
  mapped_[rank] = true;
  return verify(card, rank);
}

std::string OneShotMemory::verify(const Card& card, int rank) const {
  Mark mark{};
  const cudaError_t result = cudaMemcpy(&mark, base_[rank], sizeof mark, cudaMemcpyDeviceToHost);
  if (result != cudaSuccess) return failed("reading another rank's memory", result);
  if (mark.rank != static_cast<uint64_t>(rank) || mark.process != card.process) return fmt::format("the mapping of rank {} shows other memory", rank);
  return "";
}

void OneShotMemory::unmap() {
  for (int r = 0; r < size_; ++r) {
    if (!mapped_[r]) continue;
    cudaIpcCloseMemHandle(base_[r]);
    mapped_[r] = false;
  }
}

}  // namespace accrete::parallel
