// What the ops around an fp8 product take over from apply_scales and quantize_fp8 (quantize_fp8.h), so that no pass over memory is
// left of them: the same bits as these ops apart. On CUDA and in bf16 alone.
#pragma once

#include "kernels/view.h"

namespace accrete {

// What a product with Linear::scaled == false left to its reader: y[t][n] stands for (y[t][n] rows[t]) columns[n], rounded to bf16.
struct Factors {
  View<const float, 1> rows;     // [T]; data == nullptr: y stands for itself
  View<const float, 1> columns;  // [N], at a multiple of 16 bytes
};

// Rows rounded once more, as the next product's Linear::x and x_scale.
struct Fp8Rows {
  View<fp8, 2> values;   // [T, K] out, rows at multiples of 16 bytes, K a multiple of 16; data == nullptr: not wanted
  View<float, 1> scale;  // [T] out; may be the memory of the op's own Factors::rows
};

}  // namespace accrete
