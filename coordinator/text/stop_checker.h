// StopChecker: finds stop strings in a text that comes in pieces. What might be the beginning of one is held back, so that no part of a
// stop string is ever given out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace accrete::coordinator {

class StopChecker {
 public:
  // Empty strings are ignored.
  explicit StopChecker(std::vector<std::string> stops = {});

  struct Result {
    std::string text;      // certain to stand before any stop string
    bool stopped = false;  // a stop string came: `text` ends just before it, and nothing follows
  };
  Result push(std::string_view piece);
  // What was held back, when the text ended without a stop string.
  std::string flush();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  size_t longest_ = 0;
};

}  // namespace accrete::coordinator
