// The protocol's version and limits. docs/protocol.md is the manual; net/proto/accrete.proto the messages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace accrete::net {

// Raised when a peer of the old version would misunderstand; compared at Hello, and a difference is refused.
inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr size_t kMaxFrameBytes = size_t{64} << 20;
inline constexpr size_t kMaxQueuedBytes = size_t{256} << 20;  // written to a peer that does not read: then the connection ends
inline constexpr uint32_t kHeartbeatMs = 1000;
inline constexpr int kMissedHeartbeats = 3;                    // a peer silent for so many is dead

}  // namespace accrete::net
