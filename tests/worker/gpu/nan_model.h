// A checkpoint on disk with one embedding that is not a number: requests with that token have no finite logits, all others are well.
#pragma once

#include <cmath>
#include <random>

#include "tests/worker/model/model_files.h"

namespace accrete::worker::testing {

inline constexpr int32_t kNanToken = 7;

// Writes it into the directory.
inline void write_nan_model(const TempDir& directory) {
  constexpr int64_t kHidden = 128, kMlp = 192, kVocab = 64, kHead = 64;
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<TestTensor> tensors;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    std::vector<float> values(count);
    for (float& value : values) value = shape.size() == 1 ? 1.0f : normal(random);
    if (name == "model.embed_tokens.weight") std::fill_n(values.begin() + kNanToken * kHidden, kHidden, std::nanf(""));
    tensors.push_back(bf16_tensor(name, std::move(shape), values));
  };
  add("model.embed_tokens.weight", {kVocab, kHidden});
  for (int layer = 0; layer < 2; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "input_layernorm.weight", {kHidden});
    add(prefix + "self_attn.q_proj.weight", {2 * kHead, kHidden});
    add(prefix + "self_attn.k_proj.weight", {kHead, kHidden});
    add(prefix + "self_attn.v_proj.weight", {kHead, kHidden});
    add(prefix + "self_attn.o_proj.weight", {kHidden, 2 * kHead});
    add(prefix + "post_attention_layernorm.weight", {kHidden});
    add(prefix + "mlp.gate_proj.weight", {kMlp, kHidden});
    add(prefix + "mlp.up_proj.weight", {kMlp, kHidden});
    add(prefix + "mlp.down_proj.weight", {kHidden, kMlp});
  }
  add("model.norm.weight", {kHidden});
  add("lm_head.weight", {kVocab, kHidden});
  directory.write("model.safetensors", safetensors_file(tensors));
  directory.write("config.json", R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 128, "intermediate_size": 192,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2})");
}

}  // namespace accrete::worker::testing
