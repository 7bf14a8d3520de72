#include "net/frame_codec.h"

#include <gtest/gtest.h>

namespace accrete::net {
namespace {

rpc::Frame cancel(uint64_t id) {
  rpc::Frame frame;
  frame.mutable_cancel()->set_request_id(id);
  return frame;
}

TEST(FrameCodec, LengthIsBigEndian) {
  EXPECT_EQ(encode_frame(cancel(7)), std::string("\0\0\0\4\x5a\2\x08\7", 8));
}

TEST(FrameCodec, SplitAtEveryByte) {
  const std::string bytes = encode_frame(cancel(1)) + encode_frame(cancel(300)) + encode_frame(cancel(1u << 30));
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    FrameDecoder decoder;
    std::vector<uint64_t> ids;
    rpc::Frame frame;
    for (const std::string& part : {bytes.substr(0, cut), bytes.substr(cut)}) {
      decoder.feed(part);
      while (decoder.next(frame) == FrameDecoder::Step::frame) ids.push_back(frame.cancel().request_id());
    }
    EXPECT_EQ(ids, (std::vector<uint64_t>{1, 300, 1u << 30})) << "cut at " << cut;
  }
}

TEST(FrameCodec, OneByteAtATime) {
  FrameDecoder decoder;
  rpc::Frame frame;
  int frames = 0;
  for (const char byte : encode_frame(cancel(5)) + encode_frame(cancel(6))) {
    decoder.feed({&byte, 1});
    while (decoder.next(frame) == FrameDecoder::Step::frame) ++frames;
  }
  EXPECT_EQ(frames, 2);
}

TEST(FrameCodec, OversizeLengthIsRefusedBeforeItsBytesCome) {
  FrameDecoder decoder;
  decoder.feed(std::string("\x04\x00\x00\x01", 4));
  rpc::Frame frame;
  EXPECT_EQ(decoder.next(frame), FrameDecoder::Step::broken);
  EXPECT_NE(decoder.error().find("67108865"), std::string::npos) << decoder.error();
  decoder.feed(encode_frame(cancel(1)));
  EXPECT_EQ(decoder.next(frame), FrameDecoder::Step::broken);
}

TEST(FrameCodec, BytesThatAreNoFrame) {
  FrameDecoder decoder;
  decoder.feed(std::string("\0\0\0\2\x0a\x7f", 6));
  rpc::Frame frame;
  EXPECT_EQ(decoder.next(frame), FrameDecoder::Step::broken);
}

TEST(FrameCodec, EmptyFrameHasNoBody) {
  FrameDecoder decoder;
  decoder.feed(std::string(4, '\0'));
  rpc::Frame frame;
  ASSERT_EQ(decoder.next(frame), FrameDecoder::Step::frame);
  EXPECT_EQ(frame.body_case(), rpc::Frame::BODY_NOT_SET);
}

}  // namespace
}  // namespace accrete::net
