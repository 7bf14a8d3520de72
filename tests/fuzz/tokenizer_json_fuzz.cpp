// A tokenizer.json: refused with a TokenizerError, or a tokenizer that encodes and decodes.
#include "coordinator/text/tokenizer.h"

using namespace accrete;               // NOLINT: a program of its own
using namespace accrete::coordinator;  // NOLINT

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  rpc::TokenizerSpec spec;
  spec.set_tokenizer_json(std::string(reinterpret_cast<const char*>(data), size));
  try {
    const auto tokenizer = Tokenizer::make(spec);
    for (const char* text : {"Hello, world 123", "\xf0\x9f\x98\x80 <s>\xff", "  a\n"}) tokenizer->decode(tokenizer->encode(text));
  } catch (const TokenizerError&) {
  }
  return 0;
}
