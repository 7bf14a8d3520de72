// AddedTokens: the tokens that are cut out of a text before the model's own algorithm sees it: special ones and added words.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace accrete::coordinator {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;  // takes the white space before it, too
  bool rstrip = false;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Calls `text` for stretches between tokens and `token` for each token found, in order: the leftmost first, the longest of those that
  // start together. Special ones count only with `parse_special`.
  void split(std::string_view whole, bool parse_special, const std::function<void(std::string_view)>& text,
             const std::function<void(int32_t)>& token) const;
  const AddedToken* find(int32_t id) const;
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  const AddedToken* at(std::string_view rest, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::vector<const AddedToken*>> by_first_byte_;  // [256], longest first
  std::unordered_map<int32_t, const AddedToken*> by_id_;
};

}  // namespace accrete::coordinator
