#include "coordinator/text/detokenizer.h"

#include "coordinator/text/utf8.h"

namespace accrete::coordinator {

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer), skip_special_(skip_special_tokens), at_start_(tokenizer.strips_first_space()) {}

std::string IncrementalDetokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return "";
  std::string piece = tokenizer_->piece(id);
  if (at_start_ && !piece.empty()) {
    if (piece[0] == ' ') piece.erase(0, 1);
    at_start_ = false;
  }
  pending_ += piece;
  return take_whole(false);
}

std::string IncrementalDetokenizer::take_whole(bool last) {
  std::string out;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Utf8Step step = utf8_step(rest);
    if (step.incomplete && !last) break;
    if (step.valid) {
      out.append(rest.substr(0, step.bytes));
    } else {
      for (size_t i = tokenizer_->replaces_each_byte() ? step.bytes : 1; i > 0; --i) out.append(kReplacement);
    }
    rest.remove_prefix(step.bytes);
  }
  pending_.erase(0, pending_.size() - rest.size());
  return out;
}

std::string IncrementalDetokenizer::flush() { return take_whole(true); }

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  IncrementalDetokenizer detokenizer(*this, skip_special_tokens);
  std::string text;
  for (int32_t id : ids) text += detokenizer.push(id);
  return text + detokenizer.flush();
}

}  // namespace accrete::coordinator
