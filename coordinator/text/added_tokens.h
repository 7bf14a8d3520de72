// AddedTokens: the tokens that are cut out of a text before the model's own algorithm sees it: special ones and added
// words.
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
  bool normalized = false;   // looked for after those that are not
  bool single_word = false;  // only where no letter, digit or underscore touches it
};

// Immutable after construction, thread-safe.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);
  AddedTokens(const AddedTokens&) = delete;  // by_id_ points into tokens_
  AddedTokens& operator=(const AddedTokens&) = delete;

  using OnText = std::function<void(std::string_view)>;
  using OnToken = std::function<void(int32_t)>;
  // Calls `text` for stretches between tokens and `token` for each token found, in order. The tokens that are not
  // `normalized` are looked for first, the others in what is left; each time the leftmost first, the longest of those
  // that start together. Special ones count only with `parse_special`. `whole` is valid UTF-8.
  void split(std::string_view whole, bool parse_special, const OnText& text, const OnToken& token) const;
  const AddedToken* find(int32_t id) const;
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  struct Pass {
    std::vector<std::vector<const AddedToken*>> by_first_byte;  // [256], longest first; empty: nothing to look for
    const AddedToken* at(std::string_view whole, size_t position, bool parse_special) const;
    void split(std::string_view whole, bool parse_special, const OnText& text, const OnToken& token) const;
  };

  std::vector<AddedToken> tokens_;
  Pass raw_, normalized_;
  std::unordered_map<int32_t, const AddedToken*> by_id_;
};

}  // namespace accrete::coordinator
