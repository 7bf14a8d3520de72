// Cosines and sines of a step's positions, computed once a step and used by every layer.
//   angle[t][i] = position[t] * inv_freq[i], in double; cos and sin stored in f32
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct RopeAngles {
  View<const int32_t, 1> position;  // [T] absolute positions
  View<const double, 1> inv_freq;   // [D/2]
  View<float, 2> cos;               // [T, D/2] out
  View<float, 2> sin;               // [T, D/2] out
};

void rope_angles_cpu(const RopeAngles& op, Stream& stream);
void rope_angles_cuda(const RopeAngles& op, Stream& stream);

}  // namespace accrete
