// CHECK: a bug's end. For broken worlds throw, for answers return a value (docs/style.md).
#pragma once

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <type_traits>

#if !defined(__CUDACC__)
#include <fmt/format.h>  // nvcc cannot compile it, so nothing here may need it
#endif

namespace accrete {

// Prints "file:line: CHECK(expression) failed: values" to stderr and aborts.
[[noreturn]] inline void check_failed(const char* file, int line, const char* expression, const std::string& values) {
  std::fprintf(stderr, "%s:%d: CHECK(%s) failed: %s\n", file, line, expression, values.c_str());
  std::fflush(stderr);
  std::abort();
}

template <class T>
void put_check_value(std::ostream& out, const T& value) {
  if constexpr (std::is_integral_v<T> && sizeof(T) == 1) out << static_cast<int>(value);
  else out << value;
}

inline std::string check_values() { return ""; }
template <class T, class... Rest>
std::string check_values(const T& first, const Rest&... rest) {
  std::ostringstream out;
  put_check_value(out, first);
  ((out << ", ", put_check_value(out, rest)), ...);
  return out.str();
}

}  // namespace accrete

// CHECK(slots <= capacity, slots, capacity): the expression, then the values to print when it does not hold.
#define CHECK(expression, ...)                                                                           \
  do {                                                                                                   \
    if (!(expression)) [[unlikely]]                                                                      \
      ::accrete::check_failed(__FILE__, __LINE__, #expression, ::accrete::check_values(__VA_ARGS__)); \
  } while (false)
