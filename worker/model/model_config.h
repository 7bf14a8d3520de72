// ModelConfig: what a checkpoint says about its network, in one neutral form whatever file it came from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace accrete::worker {

// Llama 3's frequency-dependent scaling of RoPE ("rope_type": "llama3"). Linear scaling is factor alone.
struct RopeScaling {
  enum class Kind { linear, llama3 } kind = Kind::llama3;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position = 8192;
};

// config.json's "dmc" block. Absent in a plain Llama.
struct DmcConfig {
  double target_cr = 1.0;
  int window = 12;      // newest tokens of a segment that its slot averages; 0: all of them
  double offset = 5.0;  // subtracted from the decision neuron, added to the importance neuron
};

struct ModelConfig {
  std::string architecture = "LlamaForCausalLM";
  int64_t hidden = 0;        // E
  int64_t mlp = 0;           // F
  int64_t layers = 0;        // L
  int64_t query_heads = 0;   // Hq
  int64_t kv_heads = 0;      // Hkv, divides Hq
  int64_t head_size = 0;     // D, even
  int64_t vocab = 0;         // V
  int64_t max_position = 0;  // the longest context the model was trained for
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  std::optional<RopeScaling> rope_scaling;
  std::vector<double> rope_factors;  // [D/2] each frequency is divided by its factor (a GGUF's rope_freqs); empty: none
  bool tied_embeddings = false;  // the output layer is the embedding table
  std::optional<DmcConfig> dmc;
  int32_t bos_token_id = -1;  // -1: none
  std::vector<int32_t> eos_token_ids;
};

// Throws ModelError naming the field when the sizes cannot be a Llama (zero, negative, Hq % Hkv, odd head size, overflow).
void validate(const ModelConfig& config, const std::string& where);

// inv_freq[D/2]: the RoPE frequencies after scaling, radians per position.
std::vector<double> rope_frequencies(const ModelConfig& config);

}  // namespace accrete::worker
