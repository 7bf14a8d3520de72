#include "coordinator/text/added_tokens.h"

#include <algorithm>

namespace accrete::coordinator {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), by_first_byte_(256) {
  for (const AddedToken& token : tokens_) {
    by_id_[token.id] = &token;
    if (!token.content.empty()) by_first_byte_[static_cast<uint8_t>(token.content[0])].push_back(&token);
  }
  for (auto& list : by_first_byte_) {
    std::stable_sort(list.begin(), list.end(), [](const auto* a, const auto* b) { return a->content.size() > b->content.size(); });
  }
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

const AddedToken* AddedTokens::at(std::string_view rest, bool parse_special) const {
  for (const AddedToken* token : by_first_byte_[static_cast<uint8_t>(rest[0])]) {
    if ((parse_special || !token->special) && rest.starts_with(token->content)) return token;
  }
  return nullptr;
}

void AddedTokens::split(std::string_view whole, bool parse_special, const std::function<void(std::string_view)>& text,
                        const std::function<void(int32_t)>& token) const {
  if (tokens_.empty()) {
    if (!whole.empty()) text(whole);
    return;
  }
  size_t done = 0;
  for (size_t at = 0; at < whole.size();) {
    const AddedToken* found = this->at(whole.substr(at), parse_special);
    if (found == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    while (found->lstrip && begin > done && is_space(whole[begin - 1])) --begin;
    if (begin > done) text(whole.substr(done, begin - done));
    token(found->id);
    at += found->content.size();
    while (found->rstrip && at < whole.size() && is_space(whole[at])) ++at;
    done = at;
  }
  if (done < whole.size()) text(whole.substr(done));
}

}  // namespace accrete::coordinator
