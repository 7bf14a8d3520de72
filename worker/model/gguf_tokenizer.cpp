#include <limits>

#include "worker/model/gguf_metadata.h"
#include "worker/model/model_error.h"
#include "worker/model/utf8.h"

namespace accrete::worker {
namespace {

constexpr size_t kLargestTemplate = 1 << 20;

// Protobuf strings must be UTF-8, or the peer drops the whole message.
std::string checked_text(const GgufFile& file, std::string_view key, std::string_view text) {
  if (!is_utf8(text)) model_error("{}: {} holds text that is not UTF-8: {}", file.name(), key, in_quotes(text));
  return std::string(text);
}

int32_t id_or_none(const GgufFile& file, std::string_view key, size_t tokens) {
  const int64_t id = file.integer(key).value_or(-1);
  if (id == -1 || id == std::numeric_limits<uint32_t>::max()) return -1;
  if (id < 0 || static_cast<size_t>(id) >= tokens) {
    model_error("{}: {} is {}, the vocabulary has {} tokens", file.name(), key, id, tokens);
  }
  return static_cast<int32_t>(id);
}

// Per-token arrays may be absent, but not of another length.
template <class T>
void check_length(const GgufFile& file, std::string_view key, const std::vector<T>& list, size_t tokens) {
  if (!list.empty() && list.size() != tokens) {
    model_error("{}: {} has {} elements, tokenizer.ggml.tokens {}", file.name(), key, list.size(), tokens);
  }
}

void add_tables(const GgufFile& file, rpc::GgufTokenizer& tokenizer) {
  const std::vector<std::string_view> tokens = file.texts("tokenizer.ggml.tokens");
  if (tokens.empty()) model_error("{}: tokenizer.ggml.tokens is missing or empty", file.name());
  for (const std::string_view token : tokens) tokenizer.add_tokens(token.data(), token.size());
  const std::vector<float> scores = file.floats("tokenizer.ggml.scores");
  check_length(file, "tokenizer.ggml.scores", scores, tokens.size());
  tokenizer.mutable_scores()->Add(scores.begin(), scores.end());
  const std::vector<int32_t> types = file.integers("tokenizer.ggml.token_type");
  check_length(file, "tokenizer.ggml.token_type", types, tokens.size());
  tokenizer.mutable_token_types()->Add(types.begin(), types.end());
  for (const std::string_view merge : file.texts("tokenizer.ggml.merges")) {
    tokenizer.add_merges(checked_text(file, "tokenizer.ggml.merges", merge));
  }
}

std::string token_text(const GgufFile& file, const rpc::GgufTokenizer& tokenizer, int32_t id) {
  return id < 0 ? "" : checked_text(file, "tokenizer.ggml.tokens", tokenizer.tokens(id));
}

}  // namespace

rpc::TokenizerSpec parse_gguf_tokenizer(const GgufFile& file) {
  rpc::TokenizerSpec spec;
  const auto model = file.text("tokenizer.ggml.model");
  if (!model || *model == "none" || *model == "no_vocab") return spec;
  if (*model != "gpt2" && *model != "llama") {
    model_error("{}: tokenizer.ggml.model is {}; gpt2 and llama are supported", file.name(), in_quotes(*model));
  }
  const bool sentencepiece = *model == "llama";
  rpc::GgufTokenizer& tokenizer = *spec.mutable_gguf();
  tokenizer.set_model(std::string(*model));
  tokenizer.set_pre(checked_text(file, "tokenizer.ggml.pre", file.text("tokenizer.ggml.pre").value_or("default")));
  add_tables(file, tokenizer);
  const auto tokens = static_cast<size_t>(tokenizer.tokens_size());
  tokenizer.set_bos_id(id_or_none(file, "tokenizer.ggml.bos_token_id", tokens));
  tokenizer.set_eos_id(id_or_none(file, "tokenizer.ggml.eos_token_id", tokens));
  tokenizer.set_unknown_id(id_or_none(file, "tokenizer.ggml.unknown_token_id", tokens));
  tokenizer.set_add_space_prefix(file.boolean("tokenizer.ggml.add_space_prefix").value_or(sentencepiece));
  spec.set_bos_token(token_text(file, tokenizer, tokenizer.bos_id()));
  spec.set_eos_token(token_text(file, tokenizer, tokenizer.eos_id()));
  // Without the key sentencepiece models and Llama 3 begin with BOS, others do not.
  const bool llama3 = tokenizer.pre() == "llama-bpe" || tokenizer.pre() == "llama3" || tokenizer.pre() == "llama-v3";
  spec.set_add_bos_token(file.boolean("tokenizer.ggml.add_bos_token").value_or(sentencepiece || llama3));
  spec.set_add_eos_token(file.boolean("tokenizer.ggml.add_eos_token").value_or(false));
  const std::string_view chat = file.text("tokenizer.chat_template").value_or("");
  if (chat.size() > kLargestTemplate) {
    model_error("{}: tokenizer.chat_template has {} bytes; at most {} are read", file.name(), chat.size(),
                kLargestTemplate);
  }
  spec.set_chat_template(checked_text(file, "tokenizer.chat_template", chat));
  return spec;
}

}  // namespace accrete::worker
