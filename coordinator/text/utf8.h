// UTF-8 at the byte level.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace accrete::coordinator {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// The character at the front of `text`.
struct Utf8Step {
  size_t bytes = 0;        // consumed, at least 1 unless `incomplete`
  bool valid = false;      // a whole character
  bool incomplete = false; // so far valid, but the text ends inside it; bytes: what is there of it
  uint32_t code_point = 0; // valid
};
// Overlong forms, surrogates and values above U+10FFFF are invalid. An invalid step covers the longest start of a character, as the Unicode
// standard (chapter 3, "maximal subpart") and Python's decoder do.
Utf8Step utf8_step(std::string_view text);

// Unicode's White_Space.
bool is_white_space(uint32_t code_point);
// `text` (valid UTF-8) without the white space at its ends; `strip_front` and `strip_back` take one end each.
std::string_view strip_front(std::string_view text);
std::string_view strip_back(std::string_view text);

void append_utf8(uint32_t code_point, std::string& out);

// Valid UTF-8: every invalid step becomes U+FFFD; an incomplete end too.
std::string replace_invalid(std::string_view text);

}  // namespace accrete::coordinator
