#include "launch/server/front.h"

#include <fmt/format.h>

#include "coordinator/coordinator.h"

namespace accrete::launch {
namespace {

coordinator::CoordinatorOptions options_of(const ServerFlags& flags) {
  coordinator::CoordinatorOptions options;
  options.host = flags.host;
  options.port = static_cast<uint16_t>(flags.port);
  options.rpc_host = flags.host;
  options.rpc_port = static_cast<uint16_t>(flags.rpc_port);
  options.api_key = flags.api_key;
  options.chat_template = flags.chat_template;
  options.tls = flags.tls;
  return options;
}

}  // namespace

struct Front::State {
  explicit State(const ServerFlags& f) : flags(f), coordinator(options_of(f)) {}
  ServerFlags flags;
  coordinator::Coordinator coordinator;
};

Front::Front(const ServerFlags& flags) : state_(std::make_unique<State>(flags)) {}
Front::~Front() = default;

std::string Front::address() const { return fmt::format("{}:{}", reachable_host(state_->flags.host), state_->coordinator.rpc_port()); }

void Front::drain() { drain(state_->flags.shutdown_timeout); }
void Front::drain(double seconds) { state_->coordinator.drain(seconds); }

}  // namespace accrete::launch
