// RpcClientSession: one client program's requests. Lives with its connection; letting go cancels what is open.
#pragma once

#include <memory>
#include <unordered_map>

#include "coordinator/api/generation.h"
#include "net/frame_connection.h"

namespace accrete::coordinator {

class RpcClientSession {
 public:
  RpcClientSession(Cluster& cluster, ServingMetrics& metrics, net::FrameConnection& connection)
      : cluster_(cluster), metrics_(metrics), connection_(connection) {}

  // `draining`: new requests are refused.
  void on_frame(const rpc::Frame& frame, bool draining);

 private:
  struct Open {
    bool stream = true;
    rpc::Output whole;  // what a request without stream has gathered
    std::unique_ptr<Generation> generation;
  };

  void generate(const rpc::Generate& request);
  GenerationRequest prepare(const rpc::Generate& request, const std::shared_ptr<const ModelEntry>& model) const;
  void on_delta(uint64_t id, Delta&& delta);
  void refuse(uint64_t id, rpc::ErrorCode code, const std::string& message, const std::string& param = "");
  void set_draining(uint64_t id, const std::string& replica, bool draining);

  Cluster& cluster_;
  ServingMetrics& metrics_;
  net::FrameConnection& connection_;
  std::unordered_map<uint64_t, std::shared_ptr<Open>> open_;
};

}  // namespace accrete::coordinator
