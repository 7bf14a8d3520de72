#include "net/metrics.h"

#include <fmt/format.h>

namespace accrete::net {
namespace {

std::string escape(const std::string& value) {
  std::string out;
  for (char c : value) {
    if (c == '\n') out += "\\n";
    else if (c == '"' || c == '\\') out += {'\\', c};
    else out += c;
  }
  return out;
}

}  // namespace

void MetricsText::family(const std::string& name, const std::string& type, const std::string& help) {
  name_ = name;
  text_ += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
}

void MetricsText::sample(const Labels& labels, double value, const std::string& suffix) {
  text_ += name_ + suffix;
  for (size_t i = 0; i < labels.size(); ++i) text_ += fmt::format("{}{}=\"{}\"", i == 0 ? "{" : ",", labels[i].first, escape(labels[i].second));
  text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", value);
}

void MetricsText::histogram(const std::string& name, const std::string& help, const Labels& labels, const Histogram& histogram) {
  family(name, "histogram", help);
  uint64_t total = 0;
  for (size_t i = 0; i < histogram.counts.size(); ++i) {
    total += histogram.counts[i];
    Labels bucket = labels;
    bucket.emplace_back("le", i < histogram.bounds.size() ? fmt::format("{}", histogram.bounds[i]) : "+Inf");
    sample(bucket, static_cast<double>(total), "_bucket");
  }
  sample(labels, histogram.sum, "_sum");
  sample(labels, static_cast<double>(total), "_count");
}

}  // namespace accrete::net
