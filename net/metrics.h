// Prometheus text from plain structs.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace accrete::net {

// Cumulative counts per bucket, as Prometheus wants them when rendered; counted here per bucket.
struct Histogram {
  explicit Histogram(std::initializer_list<double> upper_bounds) : bounds(upper_bounds), counts(bounds.size() + 1) {}
  void observe(double value) {
    size_t i = 0;
    while (i < bounds.size() && value > bounds[i]) ++i;
    ++counts[i];
    sum += value;
  }
  std::vector<double> bounds;
  std::vector<uint64_t> counts;
  double sum = 0.0;
};

using Labels = std::vector<std::pair<std::string, std::string>>;

class MetricsText {
 public:
  // Begins a family; the samples that follow are its.
  void family(const std::string& name, const std::string& type, const std::string& help);
  void sample(const Labels& labels, double value, const std::string& suffix = "");
  void histogram(const std::string& name, const std::string& help, const Labels& labels, const Histogram& histogram);
  const std::string& text() const { return text_; }

 private:
  std::string name_;
  std::string text_;
};

}  // namespace accrete::net
