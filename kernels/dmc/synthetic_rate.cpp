#include <cmath>
#include <numeric>

#include "kernels/dmc/dmc_update.h"

namespace accrete {

// Head number i of n gets the quantile u = (perm(i) + 1/2) / n of the kept fraction f(u) = f0 + (1 - f0) u^p, whose mean over u is
// f0 + (1 - f0) / (p + 1) = 1 / CR. The least fraction f0 = 1 / (4 CR) keeps heads within an order of magnitude of the mean.
double synthetic_rate(const DmcParams& dmc, int layer, int kv_head) {
  CHECK(dmc.model_layers > 0 && dmc.model_kv_heads > 0, dmc.model_layers, dmc.model_kv_heads);
  CHECK(dmc.synthetic_cr >= 1.0, dmc.synthetic_cr);
  const int64_t heads = int64_t{dmc.model_layers} * dmc.model_kv_heads;
  int64_t stride = static_cast<int64_t>(0.6180339887 * static_cast<double>(heads));  // neighbours land far apart
  while (stride < 1 || std::gcd(stride, heads) != 1) ++stride;
  const int64_t index = int64_t{layer} * dmc.model_kv_heads + kv_head;
  const double u = (static_cast<double>(index * stride % heads) + 0.5) / static_cast<double>(heads);
  const double mean = 1.0 / dmc.synthetic_cr;
  const double least = 0.25 * mean;
  const double power = (1.0 - least) / (mean - least) - 1.0;
  return 1.0 - (least + (1.0 - least) * std::pow(u, power));
}

}  // namespace accrete
