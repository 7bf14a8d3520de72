// The frame decoder: the same bytes in two cuts must give the same frames.
#include <string>
#include <vector>

#include "net/frame_codec.h"

using accrete::net::FrameDecoder;

namespace {

std::vector<std::string> frames(std::string_view bytes, size_t cut) {
  FrameDecoder decoder(1 << 16);
  std::vector<std::string> found;
  for (size_t at = 0; at < bytes.size(); at += cut) {
    decoder.feed(bytes.substr(at, cut));
    accrete::rpc::Frame frame;
    while (decoder.next(frame) == FrameDecoder::Step::frame) found.push_back(frame.SerializeAsString());
  }
  return found;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (frames(bytes, size + 1).size() != frames(bytes, 1 + size / 7).size()) __builtin_trap();
  return 0;
}
