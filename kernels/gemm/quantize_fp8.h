// e4m3 with one factor a row, and what undoes it after a product. On CUDA alone; contract of the scale:
//   scale[r] = max_k |x[r][k]| / 448, 1 for a row of zeros      x8[r][k] = e4m3(x[r][k] / scale[r])
// in IEEE floats, round to nearest even. NaN does not enter the maximum and stays NaN; a row with an infinity gets NaN there.
// Weights [N, K] are quantised per output, activations [T, K] per token.
//
// e4m3's steps double at each power of two, so how exactly a row is kept depends on where in that octave its numbers lie. Weights, rounded
// once, may take the time to look: their scale is the one above or a larger one within the octave, whichever leaves the least error.
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct QuantizeFp8 {
  View<const bf16, 2> x;  // [R, K], rows at multiples of 16 bytes, K a multiple of 16
  View<fp8, 2> x8;        // [R, K] out, likewise
  View<float, 1> scale;   // [R] out
};

void quantize_fp8_cuda(const QuantizeFp8& op, Stream& stream);

// The same with scale[r] times the scale_step (fp8_scale.h) that makes sum_k (x[r][k] - scale[r] x8[r][k])^2 least, the first of equals;
// times 1 where that sum is no number.
void quantize_weights_fp8_cuda(const QuantizeFp8& op, Stream& stream);

// y[t][n] = (y[t][n] rows[t]) columns[n], rounded once to y's type.
struct ApplyScales {
  AnyView<2> y;                  // [T, N] in place, bf16 or f32, rows at multiples of 16 bytes, N a multiple of 16
  View<const float, 1> rows;     // [T]
  View<const float, 1> columns;  // [N], at a multiple of 16 bytes
};

void apply_scales_cuda(const ApplyScales& op, Stream& stream);

}  // namespace accrete
