#include "worker/model/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/check.h"

namespace accrete::worker {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  CHECK(state_->context != nullptr);
  CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::add(std::string_view field) {
  const auto length = static_cast<uint64_t>(field.size());
  std::array<uint8_t, 8> prefix;
  for (size_t i = 0; i < prefix.size(); ++i) prefix[i] = static_cast<uint8_t>(length >> (8 * i));
  CHECK(EVP_DigestUpdate(state_->context, prefix.data(), prefix.size()) == 1);
  CHECK(EVP_DigestUpdate(state_->context, field.data(), field.size()) == 1);
}

void Sha256::add(int64_t field) {
  add(std::string_view(std::to_string(field)));
}

void Sha256::add(double field) {
  add(static_cast<int64_t>(std::bit_cast<uint64_t>(field)));
}

std::string Sha256::hex() {
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest;
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

void add_config(Sha256& hash, const ModelConfig& config) {
  hash.add(config.architecture);
  for (const int64_t size : {config.hidden, config.mlp, config.layers, config.query_heads, config.kv_heads,
                             config.head_size, config.vocab, config.max_position}) {
    hash.add(size);
  }
  hash.add(config.rms_norm_eps);
  for (const double frequency : rope_frequencies(config)) hash.add(frequency);
  hash.add(int64_t{config.tied_embeddings});
  hash.add(int64_t{config.dmc.has_value()});
  if (config.dmc) {
    hash.add(config.dmc->target_cr);
    hash.add(int64_t{config.dmc->window});
    hash.add(config.dmc->offset);
  }
  hash.add(int64_t{config.bos_token_id});
  for (const int32_t id : config.eos_token_ids) hash.add(int64_t{id});
}

void add_tensors(Sha256& hash, const StoredTensors& tensors) {
  constexpr int64_t kSample = 64;
  hash.add(static_cast<int64_t>(tensors.size()));
  for (const auto& [name, tensor] : tensors) {
    hash.add(name);
    hash.add(shape_of(tensor.encoding).name);
    hash.add(tensor.rows);
    hash.add(tensor.columns);
    hash.add(tensor.file->size());
    const int64_t middle = tensor.bytes() / 2;
    const auto* start = tensor.file->bytes().data() + tensor.offset + middle;
    const int64_t count = std::min(kSample, tensor.bytes() - middle);
    hash.add(std::string_view(reinterpret_cast<const char*>(start), static_cast<size_t>(count)));
  }
}

}  // namespace accrete::worker
