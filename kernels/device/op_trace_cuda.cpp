#include "kernels/device/op_trace.h"

#include <fmt/format.h>

#include <algorithm>

namespace accrete {
namespace {

template <class Op>
void traced(const char* name, void (*run)(const Op&, Stream&), const Op& op, Stream& stream) {
  const OpSpan span(name, stream);
  run(op, stream);
}

void traced_linear(const Linear& op, Stream& stream) {
  traced(fmt::format("linear {} x {}", op.w.shape[0], op.w.shape[1]).c_str(), linear_cuda, op, stream);
}

void traced_plan(const DecodePlan& plan, const StepBatch& batch, const CacheRef& cache, Stream& stream) {
  const OpSpan span("plan_decode", stream);
  plan_decode_cuda(plan, batch, cache, stream);
}

}  // namespace

void OpTrace::begin(const std::string& name, Stream& stream) {
  if (used_ == spans_.size()) spans_.push_back(std::make_unique<Span>());
  spans_[used_]->name = name;
  spans_[used_]->begin.record(stream);
}

void OpTrace::end(Stream& stream) { spans_[used_++]->end.record(stream); }

std::vector<std::pair<std::string, double>> OpTrace::take() {
  std::map<std::string, double> sums;
  for (size_t i = 0; i < used_; ++i) {
    spans_[i]->end.wait();
    sums[spans_[i]->name] += static_cast<double>(spans_[i]->end.elapsed_ms_since(spans_[i]->begin));
  }
  used_ = 0;
  std::vector<std::pair<std::string, double>> parts(sums.begin(), sums.end());
  std::sort(parts.begin(), parts.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return parts;
}

const Backend& traced_cuda_backend() {
  static constexpr Backend kBackend{
      .name = "cuda, traced",
      .embedding = [](const Embedding& op, Stream& s) { traced("embedding", embedding_cuda, op, s); },
      .rms_norm = [](const RmsNorm& op, Stream& s) { traced("rms_norm", rms_norm_cuda, op, s); },
      .linear = traced_linear,
      .rope_angles = [](const RopeAngles& op, Stream& s) { traced("rope_angles", rope_angles_cuda, op, s); },
      .dmc_update = [](const DmcUpdate& op, Stream& s) { traced("dmc_update", dmc_update_cuda, op, s); },
      .attention = [](const Attention& op, Stream& s) { traced("attention", attention_cuda, op, s); },
      .silu_mul = [](const SiluMul& op, Stream& s) { traced("silu_mul", silu_mul_cuda, op, s); },
      .join_logits = [](const JoinLogits& op, Stream& s) { traced("join_logits", join_logits_cuda, op, s); },
      .plan_decode = traced_plan};
  return kBackend;
}

}  // namespace accrete
