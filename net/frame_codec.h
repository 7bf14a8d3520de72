// Frames as bytes: a 4-byte big-endian length, then one serialized rpc::Frame of that many bytes. Pure: no socket.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "net/protocol.h"
#include "net/proto/accrete.pb.h"

namespace accrete::net {

// Throws std::length_error when the frame is over kMaxFrameBytes.
std::string encode_frame(const rpc::Frame& frame);

class FrameDecoder {
 public:
  enum class Step {
    none,    // no whole frame yet
    frame,   // one was taken
    broken,  // a length over the limit or bytes that do not parse: error() says; nothing more will come
  };
  explicit FrameDecoder(size_t max_frame_bytes = kMaxFrameBytes) : max_(max_frame_bytes) {}

  void feed(std::string_view bytes) { buffer_.append(bytes); }
  Step next(rpc::Frame& frame);
  const std::string& error() const { return error_; }

 private:
  Step fail(std::string why);

  size_t max_;
  std::string buffer_;
  size_t begin_ = 0;  // of the bytes not yet taken
  std::string error_;
};

}  // namespace accrete::net
