// Logits against Hugging Face transformers in float64 (make_hf_golden.py).
#include <gtest/gtest.h>

#include <cstring>

#include "tests/worker/llama/llama_rig.h"
#include "tests/worker/llama/seeded_source.h"
#include "worker/model/file_bytes.h"
#include "worker/model/safetensors.h"

namespace accrete::worker {

namespace {

struct GoldenModel {
  std::string name;
  ModelConfig config;
};
void PrintTo(const GoldenModel& model, std::ostream* out) {
  *out << model.name;
}

struct Golden {
  std::vector<int32_t> ids;
  LogitRows logits;
};

ModelConfig config_of(int64_t hidden, int64_t mlp, int64_t query_heads, int64_t kv_heads, int64_t head_size) {
  ModelConfig config = small_config(2, query_heads, kv_heads);
  config.hidden = hidden;
  config.mlp = mlp;
  config.head_size = head_size;
  return config;
}

// As MODELS in make_hf_golden.py.
std::vector<GoldenModel> models() {
  std::vector<GoldenModel> all{
      {"mha_d64", config_of(128, 160, 2, 2, 64)},
      {"gqa_d64", config_of(192, 192, 6, 2, 64)},
      {"mha_d128", config_of(256, 320, 2, 2, 128)},
      {"gqa_d128", config_of(128, 160, 8, 2, 128)},
      {"gqa_d64_llama3_tied", config_of(128, 160, 4, 2, 64)},
      {"gqa_d64_linear", config_of(144, 160, 9, 3, 64)},
  };
  all[4].config.rope_theta = 500000.0;
  all[4].config.rope_scaling = RopeScaling{RopeScaling::Kind::llama3, 8.0, 1.0, 4.0, 64};
  all[4].config.tied_embeddings = true;
  all[5].config.rope_scaling = RopeScaling{RopeScaling::Kind::linear, 4.0, 1.0, 4.0, 512};
  return all;
}

template <class T>
std::vector<T> tensor(const FileBytes& file, const SafetensorsTable& table, const std::string& name) {
  const SafetensorsEntry& entry = table.at(name);
  std::vector<T> values(entry.bytes / sizeof(T));
  std::memcpy(values.data(), file.bytes().data() + entry.offset, entry.bytes);
  return values;
}

Golden read_golden(const std::string& name, int64_t vocab) {
  const FileBytes file =
      FileBytes::map(std::string(ACCRETE_SOURCE_DIR) + "/tests/golden/llama/hf_" + name + ".safetensors");
  const SafetensorsTable table = parse_safetensors(file);
  Golden golden{tensor<int32_t>(file, table, "ids"), {}};
  const std::vector<float> logits = tensor<float>(file, table, "logits");
  for (size_t row = 0; row < golden.ids.size(); ++row)
    golden.logits.emplace_back(logits.begin() + row * vocab, logits.begin() + (row + 1) * vocab);
  return golden;
}

class AgainstTransformers : public testing::TestWithParam<GoldenModel> {
 protected:
  void expect_golden(const RigOptions& options, const std::string& what) {
    const SeededSource source(GetParam().config);
    const Golden golden = read_golden(GetParam().name, source.config().vocab);
    LlamaRig rig(source, options);
    const double difference = largest_difference(rig.all_logits(golden.ids), golden.logits);
    // Rounding of ours alone: the reference is float64.
    const double bound = reordering_bound(source.config(), scale_of(golden.logits), 4);
    EXPECT_LT(difference, bound) << what;
    EXPECT_LT(bound, 2e-4 * scale_of(golden.logits));
    RecordProperty(what, std::to_string(difference / scale_of(golden.logits)));
  }
};

TEST_P(AgainstTransformers, InChunksOfAnySize) {
  for (int64_t chunk : {1, 3, 16, 17, 40}) {
    RigOptions options;
    options.chunk = chunk;
    expect_golden(options, "chunk_" + std::to_string(chunk));
  }
}

// The weights are exact in bfloat16, so the same logits come out.
TEST_P(AgainstTransformers, WithBf16Weights) {
  RigOptions options;
  options.weight_dtype = DType::bf16;
  expect_golden(options, "bf16");
}

TEST_P(AgainstTransformers, Sharded) {
  for (int tensor = 1; tensor <= GetParam().config.kv_heads; ++tensor) {
    for (int pipeline : {1, 2}) {
      RigOptions options;
      options.topology = {tensor, pipeline, 1};
      expect_golden(options, "tp" + std::to_string(tensor) + "_pp" + std::to_string(pipeline));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Llama, AgainstTransformers, testing::ValuesIn(models()),
                         [](const auto& info) { return info.param.name; });

}  // namespace

}  // namespace accrete::worker
