// The compressed cache as lists of vectors, in double: the text of docs/dmc.md and nothing else. What KvCache is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

namespace accrete::cache {

using Numbers = std::vector<double>;

// One token as a KV head sees it; importance is the mean of the group's last query components.
struct NaiveToken {
  Numbers k, v;  // [D]
  double importance = 0.0;
  int64_t position = 0;
};

// Angle of component i's pair at a position: any fixed rule will do, the op is given the same.
inline double angle(int64_t position, int64_t i) { return static_cast<double>(position) / (1.0 + static_cast<double>(3 * i)); }

class NaiveHead {
 public:
  explicit NaiveHead(int window = 12) : window_(window) {}

  void add(const NaiveToken& token) {
    constexpr double kOffset = 5.0;
    const size_t last = token.k.size() - 1;
    const bool accumulate = !keys.empty() && token.k[last] > kOffset;
    Member member{token.k, token.v, 1.0 / (1.0 + std::exp(-(token.importance + kOffset))) + 1.0 / 128};
    member.k[last] = 0.0;
    if (!accumulate) {
      segment_.clear();
      keys.emplace_back();
      values.emplace_back();
    }
    segment_.push_back(member);
    if (window_ > 0 && segment_.size() > static_cast<size_t>(window_)) segment_.erase(segment_.begin());
    keys.back() = rotated(average(&Member::k), token.position);
    values.back() = average(&Member::v);
  }

  std::vector<Numbers> keys, values;  // [n][D], keys rotated

 private:
  struct Member {
    Numbers k, v;
    double w;
  };
  Numbers average(Numbers Member::*which) const {
    Numbers sum((segment_[0].*which).size(), 0.0);
    double total = 0.0;
    for (const Member& member : segment_) {
      total += member.w;
      for (size_t d = 0; d < sum.size(); ++d) sum[d] += member.w * (member.*which)[d];
    }
    for (double& x : sum) x /= total;
    return sum;
  }
  static Numbers rotated(const Numbers& x, int64_t position) {
    const size_t half = x.size() / 2;
    Numbers y(x.size());
    for (size_t i = 0; i < half; ++i) {
      const double c = std::cos(angle(position, static_cast<int64_t>(i))), s = std::sin(angle(position, static_cast<int64_t>(i)));
      y[i] = x[i] * c - x[i + half] * s;
      y[i + half] = x[i] * s + x[i + half] * c;
    }
    y.back() = 0.0;
    return y;
  }

  int window_;
  std::vector<Member> segment_;
};

// A sequence: its heads, layer-major, and how many tokens it has.
struct NaiveRow {
  std::vector<NaiveHead> heads;  // [L * Hkv]
  int64_t tokens = 0;
};

}  // namespace accrete::cache
