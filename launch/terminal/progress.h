// Progress of long work on stderr: a bar that redraws itself on a terminal, a line now and then elsewhere. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace accrete::launch {

// Whether stderr is a terminal; colour needs NO_COLOR to be unset or empty too.
bool is_terminal();
bool wants_colour();

class Progress {
 public:
  Progress(std::string label, int64_t total);
  ~Progress();  // ends the bar's line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of total units; `note` is shown behind the bar ("81.3 tok/s").
  void update(int64_t done, const std::string& note = "");

 private:
  void draw_bar(const std::string& note);
  void log_line(const std::string& note);

  std::string label_;
  int64_t total_;
  int64_t done_ = 0;
  bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace accrete::launch
