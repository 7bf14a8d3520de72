// Peer: the frames port as seen by whoever connects to it: speaks frames, or any bytes.
#pragma once

#include "net/frame_codec.h"
#include "net/protocol.h"
#include "tests/coordinator/front/front.h"

namespace accrete::coordinator {

class Peer {
 public:
  explicit Peer(uint16_t rpc_port) : client_(rpc_port) {}
  bool send(const rpc::Frame& frame) { return client_.send(net::encode_frame(frame)); }
  bool send_bytes(std::string_view bytes) { return client_.send(bytes); }
  void hang_up() { client_.hang_up(); }

  // The next frame that is no heartbeat; nothing when the connection ends (or hangs, which fails the test).
  std::optional<rpc::Frame> next() {
    rpc::Frame frame;
    while (true) {
      const auto step = decoder_.next(frame);
      if (step == net::FrameDecoder::Step::frame && !frame.has_heartbeat()) return frame;
      if (step == net::FrameDecoder::Step::frame) continue;
      if (step == net::FrameDecoder::Step::broken) ADD_FAILURE() << decoder_.error();
      if (step == net::FrameDecoder::Step::broken || !client_.read_some()) break;
      decoder_.feed(client_.take());
    }
    EXPECT_TRUE(client_.ended());
    return std::nullopt;
  }
  bool ended() { return !next(); }
  rpc::Error next_error() {
    const auto frame = next();
    EXPECT_TRUE(frame && frame->has_error()) << (frame ? frame->ShortDebugString() : "the connection ended");
    return frame ? frame->error() : rpc::Error();
  }

 private:
  net::RawClient client_;
  net::FrameDecoder decoder_;
};

inline rpc::Frame hello_frame(rpc::Hello hello) {
  rpc::Frame frame;
  *frame.mutable_hello() = std::move(hello);
  return frame;
}

inline rpc::Hello client_hello(const std::string& api_key = "") {
  rpc::Hello hello;
  hello.set_protocol_version(net::kProtocolVersion);
  hello.set_role(rpc::ROLE_CLIENT);
  hello.set_software_version("a test");
  hello.set_api_key(api_key);
  return hello;
}

inline rpc::Frame generate(uint64_t id, const std::vector<int32_t>& tokens) {
  rpc::Frame frame;
  rpc::Generate& request = *frame.mutable_generate();
  request.set_request_id(id);
  request.mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
  request.mutable_sampling()->set_max_tokens(5);
  request.set_stream(true);
  return frame;
}

// A client program that has been welcomed.
inline std::unique_ptr<Peer> welcomed(uint16_t rpc_port, const std::string& api_key = "") {
  auto peer = std::make_unique<Peer>(rpc_port);
  EXPECT_TRUE(peer->send(hello_frame(client_hello(api_key))));
  const auto answer = peer->next();
  EXPECT_TRUE(answer && answer->has_welcome());
  return peer;
}

}  // namespace accrete::coordinator
