#include "net/frame_codec.h"

#include <fmt/format.h>

#include <cstdint>

namespace accrete::net {

std::string encode_frame(const rpc::Frame& frame) {
  const size_t size = frame.ByteSizeLong();
  if (size > kMaxFrameBytes) throw std::length_error(fmt::format("a frame of {} bytes is over the limit of {}", size, kMaxFrameBytes));
  std::string bytes;
  bytes.reserve(4 + size);
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift & 0xff);
  frame.AppendToString(&bytes);
  return bytes;
}

FrameDecoder::Step FrameDecoder::fail(std::string why) {
  error_ = std::move(why);
  return Step::broken;
}

FrameDecoder::Step FrameDecoder::next(rpc::Frame& frame) {
  if (!error_.empty()) return Step::broken;
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (rest.size() < 4) return Step::none;
  size_t size = 0;
  for (int i = 0; i < 4; ++i) size = size << 8 | static_cast<uint8_t>(rest[i]);
  if (size > max_) return fail(fmt::format("a frame of {} bytes, the limit is {}", size, max_));
  if (rest.size() < 4 + size) return Step::none;
  if (!frame.ParseFromArray(rest.data() + 4, static_cast<int>(size))) return fail(fmt::format("{} bytes that do not parse as a frame", size));
  begin_ += 4 + size;
  if (begin_ == buffer_.size() || begin_ > (size_t{1} << 20)) {
    buffer_.erase(0, begin_);
    begin_ = 0;
  }
  return Step::frame;
}

}  // namespace accrete::net
