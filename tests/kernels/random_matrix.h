// Matrices of seeded normal numbers for op tests, with rows further apart than they are long, so that an op that ignores a
// stride or writes past a row is caught.
#pragma once

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/view.h"

namespace accrete {

inline constexpr double kUnitRoundoff = 0x1p-24;  // of float

// Bound on the relative error of `roundings` roundings in a row (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
inline double gamma(double roundings) { return roundings * kUnitRoundoff / (1 - roundings * kUnitRoundoff); }

template <class T>
class RandomMatrix {
 public:
  static constexpr int64_t kGap = 3;  // elements between rows, kept at kGuard
  static constexpr float kGuard = 12345.0f;

  RandomMatrix(int64_t rows, int64_t columns, unsigned seed, float scale = 1.0f)
      : rows_(rows), columns_(columns), data_(rows * (columns + kGap), T(kGuard)) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) view()(i, j) = T(normal(random));
    }
  }

  View<T, 2> view() { return View<T, 2>(data_.data(), {rows_, columns_}, {columns_ + kGap, 1}); }
  double at(int64_t row, int64_t column) { return static_cast<float>(view()(row, column)); }
  bool gaps_untouched() const {
    for (int64_t i = 0; i < rows_; ++i) {
      for (int64_t j = columns_; j < columns_ + kGap; ++j) {
        if (static_cast<float>(data_[i * (columns_ + kGap) + j]) != static_cast<float>(T(kGuard))) return false;
      }
    }
    return true;
  }

 private:
  int64_t rows_, columns_;
  std::vector<T> data_;
};

}  // namespace accrete
