#include <cmath>
#include <numeric>

#include "kernels/dmc/dmc_update.h"

namespace accrete {

// The kept fraction of heads is f(u) = f0 + (1 - f0) u^p for u in [0, 1], whose mean f0 + (1 - f0) / (p + 1) is 1 / CR; the least
// fraction f0 = 1 / (4 CR) is an order of magnitude or more below the greatest for CR > 2. Head i of n gets the mean of f over the cell
// [c / n, (c + 1) / n], c = perm(i), so that the mean over the n heads is 1 / CR exactly.
double synthetic_rate(const DmcParams& dmc, int layer, int kv_head) {
  CHECK(dmc.model_layers > 0 && dmc.model_kv_heads > 0, dmc.model_layers, dmc.model_kv_heads);
  CHECK(dmc.synthetic_cr >= 1.0, dmc.synthetic_cr);
  if (dmc.synthetic_cr == 1.0) return 0.0;
  const int64_t heads = int64_t{dmc.model_layers} * dmc.model_kv_heads;
  int64_t stride = static_cast<int64_t>(0.6180339887 * static_cast<double>(heads));  // neighbours land far apart
  while (stride < 1 || std::gcd(stride, heads) != 1) ++stride;
  const int64_t index = int64_t{layer} * dmc.model_kv_heads + kv_head;
  const double n = static_cast<double>(heads), cell = static_cast<double>(index * stride % heads);
  const double mean = 1.0 / dmc.synthetic_cr;
  const double least = 0.25 * mean;
  const double power = (1.0 - least) / (mean - least);  // p + 1
  const double rise = (std::pow((cell + 1.0) / n, power) - std::pow(cell / n, power)) * n / power;
  return 1.0 - (least + (1.0 - least) * rise);
}

}  // namespace accrete
