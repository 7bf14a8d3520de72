#include "coordinator/text/added_tokens.h"

#include <algorithm>

#include "coordinator/text/utf8.h"

namespace accrete::coordinator {
namespace {

// Beyond ASCII every character counts as part of a word: scripts without spaces have no other borders.
bool is_word_byte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

bool stands_alone(std::string_view whole, size_t begin, size_t end) {
  return (begin == 0 || !is_word_byte(whole[begin - 1])) && (end == whole.size() || !is_word_byte(whole[end]));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (const AddedToken& token : tokens_) {
    by_id_[token.id] = &token;
    if (token.content.empty()) continue;
    auto& lists = (token.normalized ? normalized_ : raw_).by_first_byte;
    lists.resize(256);
    lists[static_cast<uint8_t>(token.content[0])].push_back(&token);
  }
  for (Pass* pass : {&raw_, &normalized_}) {
    for (auto& list : pass->by_first_byte) {
      std::stable_sort(list.begin(), list.end(),
                       [](const auto* a, const auto* b) { return a->content.size() > b->content.size(); });
    }
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const AddedToken* AddedTokens::Pass::at(std::string_view whole, size_t position, bool parse_special) const {
  const std::string_view rest = whole.substr(position);
  for (const AddedToken* token : by_first_byte[static_cast<uint8_t>(rest[0])]) {
    if ((token->special && !parse_special) || !rest.starts_with(token->content)) continue;
    if (!token->single_word || stands_alone(whole, position, position + token->content.size())) return token;
  }
  return nullptr;
}

void AddedTokens::Pass::split(std::string_view whole, bool parse_special, const OnText& text,
                              const OnToken& token) const {
  if (by_first_byte.empty()) {
    if (!whole.empty()) text(whole);
    return;
  }
  size_t done = 0;
  for (size_t position = 0; position < whole.size();) {
    const AddedToken* found = at(whole, position, parse_special);
    if (found == nullptr) {
      ++position;
      continue;
    }
    std::string_view before = whole.substr(done, position - done);
    if (found->lstrip) before = strip_back(before);
    if (!before.empty()) text(before);
    token(found->id);
    position += found->content.size();
    if (found->rstrip) position = whole.size() - strip_front(whole.substr(position)).size();
    done = position;
  }
  if (done < whole.size()) text(whole.substr(done));
}

void AddedTokens::split(std::string_view whole, bool parse_special, const OnText& text, const OnToken& token) const {
  raw_.split(
      whole, parse_special,
      [&](std::string_view stretch) { normalized_.split(stretch, parse_special, text, token); }, token);
}

}  // namespace accrete::coordinator
