// model_error("{}: tensor {} ...", file, name): throws ModelError with the formatted message.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

#include "worker/model/tensor_source.h"

namespace accrete::worker {

template <class... Args>
[[noreturn]] void model_error(fmt::format_string<Args...> format, Args&&... args) {
  throw ModelError(fmt::format(format, std::forward<Args>(args)...));
}

// Text from an untrusted file, cut and made printable for a message.
std::string in_quotes(std::string_view text);

// 98,000,000 -> "98 MB"
std::string human_bytes(int64_t bytes);

}  // namespace accrete::worker
