#include "coordinator/text/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "coordinator/text/tokenizer.h"

namespace accrete::coordinator {
namespace {

// Unicode's White_Space, which \s means in the expressions of Hugging Face tokenizers; PCRE2's own also takes U+180E.
constexpr const char* kWhiteSpace = R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Spells \s and \S out, inside and outside of character classes.
std::string spell_out_spaces(const std::string& pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') out += in_class ? kWhiteSpace : fmt::format("[{}]", kWhiteSpace);
      else if (next == 'S' && !in_class) out += fmt::format("[^{}]", kWhiteSpace);
      else out += {c, next};
      continue;
    }
    if (c == '[') in_class = true;
    if (c == ']') in_class = false;
    out += c;
  }
  return out;
}

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

struct SplitPattern::State {
  pcre2_code* code = nullptr;
  ~State() { pcre2_code_free(code); }
};

SplitPattern::SplitPattern(const std::string& pattern, const std::string& field) : state_(std::make_unique<State>()) {
  const std::string spelled = spell_out_spaces(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  state_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(spelled.data()), spelled.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK,
                               &error, &offset, nullptr);
  if (state_->code == nullptr) {
    PCRE2_UCHAR why[256] = {};
    pcre2_get_error_message(error, why, sizeof(why));
    throw TokenizerError(fmt::format("tokenizer: {}: the pattern does not compile: {}", field, reinterpret_cast<const char*>(why)));
  }
  pcre2_jit_compile(state_->code, PCRE2_JIT_COMPLETE);  // without it the interpreter serves
}

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;

void SplitPattern::split(std::string_view text, const std::function<void(std::string_view, bool)>& piece) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create_from_pattern(state_->code, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t at = 0, done = 0;
  while (at < text.size()) {
    const int found = pcre2_match(state_->code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (found < 0) break;  // no further match, or the match limit of a hostile text: the rest is one piece
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    if (range[1] == range[0]) {  // an empty match splits nothing
      ++at;
      while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) ++at;
      continue;
    }
    if (range[0] > done) piece(text.substr(done, range[0] - done), false);
    piece(text.substr(range[0], range[1] - range[0]), true);
    at = done = range[1];
  }
  if (done < text.size()) piece(text.substr(done), false);
}

}  // namespace accrete::coordinator
