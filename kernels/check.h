// CHECK: a bug's end. For broken worlds throw, for answers return a value (docs/style.md).
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace accrete {

// Prints "file:line: CHECK(expression) failed: values" to stderr and aborts.
[[noreturn]] inline void check_failed(const char* file, int line, const char* expression, const std::string& values) {
  fmt::print(stderr, "{}:{}: CHECK({}) failed: {}\n", file, line, expression, values);
  std::fflush(stderr);
  std::abort();
}

inline std::string check_values() { return ""; }
template <class T, class... Rest>
std::string check_values(const T& first, const Rest&... rest) {
  if constexpr (sizeof...(rest) == 0) return fmt::format("{}", first);
  else return fmt::format("{}, {}", first, check_values(rest...));
}

}  // namespace accrete

// CHECK(slots <= capacity, slots, capacity): the expression, then the values to print when it does not hold.
#define CHECK(expression, ...)                                                                           \
  do {                                                                                                   \
    if (!(expression)) [[unlikely]]                                                                      \
      ::accrete::check_failed(__FILE__, __LINE__, #expression, ::accrete::check_values(__VA_ARGS__)); \
  } while (false)
