#include "worker/model/model_config.h"

#include <cmath>
#include <limits>
#include <numbers>

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

struct Range {
  const char* field;
  int64_t value;
  int64_t largest;
};

// Far above any Llama; low enough that no product of two of them, nor a layer's bytes, can overflow 64 bits.
constexpr int64_t kLargestSize = 1 << 24;
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostHeads = 65536;
constexpr int64_t kLargestHead = 4096;

void check_rope(const ModelConfig& config, const std::string& where) {
  if (!(config.rope_theta > 0.0)) model_error("{}: rope_theta must be positive, not {}", where, config.rope_theta);
  if (!config.rope_factors.empty() && static_cast<int64_t>(config.rope_factors.size()) != config.head_size / 2) {
    model_error("{}: {} rope factors, {} are needed (half the head size)", where, config.rope_factors.size(),
                config.head_size / 2);
  }
  for (const double factor : config.rope_factors) {
    if (!(factor > 0.0) || !std::isfinite(factor)) model_error("{}: a rope factor is {}", where, factor);
  }
  if (!config.rope_scaling) return;
  const RopeScaling& scaling = *config.rope_scaling;
  if (!(scaling.factor > 0.0)) model_error("{}: rope scaling's factor must be positive, not {}", where, scaling.factor);
  if (scaling.kind == RopeScaling::Kind::linear) return;
  if (!(scaling.low_freq_factor > 0.0) || !(scaling.high_freq_factor > scaling.low_freq_factor)) {
    model_error("{}: rope scaling needs 0 < low_freq_factor < high_freq_factor, not {} and {}", where,
                scaling.low_freq_factor, scaling.high_freq_factor);
  }
  if (scaling.original_max_position < 1) {
    model_error("{}: original_max_position_embeddings must be positive, not {}", where, scaling.original_max_position);
  }
}

// Long waves are divided by the factor, short ones kept, those between blended.
double llama3_frequency(double frequency, const RopeScaling& scaling) {
  const double turns = static_cast<double>(scaling.original_max_position) * frequency / (2.0 * std::numbers::pi);
  if (turns > scaling.high_freq_factor) return frequency;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  const double kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return frequency * (kept + (1.0 - kept) / scaling.factor);
}

}  // namespace

void validate(const ModelConfig& config, const std::string& where) {
  const Range ranges[] = {
      {"hidden_size", config.hidden, kLargestSize},
      {"intermediate_size", config.mlp, kLargestSize},
      {"num_hidden_layers", config.layers, kMostLayers},
      {"num_attention_heads", config.query_heads, kMostHeads},
      {"num_key_value_heads", config.kv_heads, kMostHeads},
      {"head_dim", config.head_size, kLargestHead},
      {"vocab_size", config.vocab, kLargestSize},
      {"max_position_embeddings", config.max_position, std::numeric_limits<int32_t>::max()},
  };
  for (const auto& [field, value, largest] : ranges) {
    if (value < 1 || value > largest) model_error("{}: {} must be in 1..{}, not {}", where, field, largest, value);
  }
  if (config.query_heads % config.kv_heads != 0) {
    model_error("{}: num_attention_heads {} is no multiple of num_key_value_heads {}", where, config.query_heads,
                config.kv_heads);
  }
  if (config.head_size % 2 != 0) model_error("{}: head_dim must be even, not {}", where, config.head_size);
  if (config.query_heads * config.head_size > kLargestSize) {
    model_error("{}: num_attention_heads x head_dim is {}; at most {}", where, config.query_heads * config.head_size,
                kLargestSize);
  }
  if (!(config.rms_norm_eps > 0.0 && config.rms_norm_eps < 1.0)) {
    model_error("{}: rms_norm_eps must be between 0 and 1, not {}", where, config.rms_norm_eps);
  }
  check_rope(config, where);
  for (const int32_t id : config.eos_token_ids) {
    if (id < 0) model_error("{}: eos_token_id {} is negative", where, id);
  }
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
  const int64_t half = config.head_size / 2;
  std::vector<double> frequencies(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.head_size);
    double frequency = std::pow(config.rope_theta, exponent);
    if (config.rope_scaling) {
      const RopeScaling& scaling = *config.rope_scaling;
      frequency =
          scaling.kind == RopeScaling::Kind::linear ? frequency / scaling.factor : llama3_frequency(frequency, scaling);
    }
    if (!config.rope_factors.empty()) frequency /= config.rope_factors[static_cast<size_t>(i)];
    frequencies[static_cast<size_t>(i)] = frequency;
  }
  return frequencies;
}

}  // namespace accrete::worker
