#include "launch/terminal/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace accrete::launch {
namespace {

constexpr int kBarWidth = 30;
constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kLogEvery = std::chrono::seconds(5);

}  // namespace

bool is_terminal() { return isatty(STDERR_FILENO) == 1; }

bool wants_colour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return is_terminal() && (no_colour == nullptr || *no_colour == '\0');
}

Progress::Progress(std::string label, int64_t total)
    : label_(std::move(label)), total_(std::max<int64_t>(total, 1)), terminal_(is_terminal()) {
  if (!terminal_) last_ = std::chrono::steady_clock::now();
}

Progress::~Progress() {
  if (terminal_ && drawn_) std::fputc('\n', stderr);
}

void Progress::update(int64_t done, const std::string& note) {
  const auto now = std::chrono::steady_clock::now();
  const bool finished = done >= total_ && done_ < total_;
  done_ = std::min(done, total_);
  if (!finished && now - last_ < (terminal_ ? std::chrono::steady_clock::duration(kRedraw) : kLogEvery)) return;
  last_ = now;
  if (terminal_) draw_bar(note);
  else log_line(note);
}

void Progress::draw_bar(const std::string& note) {
  const auto filled = static_cast<size_t>(done_ * kBarWidth / total_);
  const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '-');
  const char* colour = wants_colour() ? "\033[36m" : "";
  fmt::print(stderr, "\r{} {}[{}]{} {}/{} {}\033[K", label_, colour, bar, *colour ? "\033[0m" : "", done_, total_, note);
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::log_line(const std::string& note) {
  fmt::print(stderr, "{}: {}/{} ({} %){}{}\n", label_, done_, total_, done_ * 100 / total_, note.empty() ? "" : ", ", note);
}

}  // namespace accrete::launch
