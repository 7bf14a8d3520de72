// IncrementalDetokenizer: one sequence's ids to text as they come; a piece never ends inside a UTF-8 character.
#pragma once

#include <string>

#include "coordinator/text/tokenizer.h"

namespace accrete::coordinator {

class IncrementalDetokenizer {
 public:
  // `tokenizer` must outlive it.
  explicit IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens = true);

  // The text that is certain now. All pushes and the flush together equal Tokenizer::decode of all ids.
  std::string push(int32_t id);
  // What is held back: bytes of a character that never became whole become U+FFFD.
  std::string flush();

 private:
  std::string take_whole(bool last);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool at_start_;        // a leading space is still to be dropped
  std::string pending_;  // bytes not yet given out
};

}  // namespace accrete::coordinator
