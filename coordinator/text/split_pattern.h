// SplitPattern: a pre-tokenizer's regular expression over Unicode text (PCRE2, compiled just in time).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace accrete::coordinator {

class SplitPattern {
 public:
  // `field` names where the pattern stands, for the TokenizerError of one that does not compile.
  SplitPattern(const std::string& pattern, const std::string& field);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;

  // Calls `piece` for the matches and for what lies between them, in order; together they are `text` (valid UTF-8). Thread-safe.
  void split(std::string_view text, const std::function<void(std::string_view piece, bool match)>& piece) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::coordinator
