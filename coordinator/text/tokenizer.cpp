#include "coordinator/text/tokenizer.h"

#include "coordinator/text/bpe_tokenizer.h"

namespace accrete::coordinator {

std::unique_ptr<Tokenizer> Tokenizer::make(const rpc::TokenizerSpec& spec) {
  switch (spec.kind_case()) {
    case rpc::TokenizerSpec::kSentencepiece: return std::make_unique<BpeTokenizer>(settings_from_sentencepiece(spec.sentencepiece(), spec));
    case rpc::TokenizerSpec::kTokenizerJson: return std::make_unique<BpeTokenizer>(settings_from_json(spec.tokenizer_json(), spec));
    case rpc::TokenizerSpec::kGguf: return std::make_unique<BpeTokenizer>(settings_from_gguf(spec.gguf(), spec));
    case rpc::TokenizerSpec::KIND_NOT_SET: break;
  }
  throw TokenizerError("the model brings no tokenizer");
}

}  // namespace accrete::coordinator
