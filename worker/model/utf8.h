#pragma once

#include <string_view>

namespace accrete::worker {

// Whether every byte belongs to a well-formed UTF-8 sequence (no overlong forms, surrogates or values past 10FFFF).
bool is_utf8(std::string_view text);

}  // namespace accrete::worker
