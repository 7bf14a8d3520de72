// A GGUF's tokenizer metadata as BPE settings.
#include <fmt/format.h>

#include "coordinator/text/bpe_tokenizer.h"

namespace accrete::coordinator {
namespace {

// tokenizer.ggml.token_type
constexpr int kControl = 3, kUserDefined = 4;

constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::vector<PreTokenizeStep> steps_of(const std::string& pre) {
  const std::string field = "tokenizer.ggml.pre " + pre;
  if (pre == "smollm" || pre == "starcoder" || pre == "refact" || pre == "codeshell") {
    return {{PreTokenizeStep::Kind::digits, nullptr, true}, pattern_step(kGpt2Pattern, field)};
  }
  if (pre == "gpt-2" || pre == "gpt2" || pre == "olmo" || pre == "jais") return {pattern_step(kGpt2Pattern, field)};
  if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3") return {pattern_step(kLlama3Pattern, field)};
  if (pre == "qwen2") return {pattern_step(kQwen2Pattern, field)};
  throw TokenizerError(fmt::format("tokenizer.ggml.pre: '{}' is not known (smollm, starcoder, gpt-2, llama-bpe, qwen2 are)", pre));
}

std::vector<std::pair<std::string, std::string>> merges_of(const rpc::GgufTokenizer& gguf) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (const std::string& merge : gguf.merges()) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) throw TokenizerError(fmt::format("tokenizer.ggml.merges[{}]: '{}' has no space", merges.size(), merge));
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return merges;
}

void add_ends(const rpc::GgufTokenizer& gguf, const rpc::TokenizerSpec& spec, BpeSettings& settings) {
  const auto in_vocabulary = [&](int32_t id) { return id >= 0 && id < gguf.tokens_size(); };
  settings.bos_id = in_vocabulary(gguf.bos_id()) ? gguf.bos_id() : -1;
  settings.eos_id = in_vocabulary(gguf.eos_id()) ? gguf.eos_id() : -1;
  if (spec.add_bos_token() && settings.bos_id >= 0) settings.before.push_back(settings.bos_id);
  if (spec.add_eos_token() && settings.eos_id >= 0) settings.after.push_back(settings.eos_id);
}

}  // namespace

BpeSettings settings_from_gguf(const rpc::GgufTokenizer& gguf, const rpc::TokenizerSpec& spec) {
  BpeSettings settings;
  settings.merges_field = "tokenizer.ggml.merges";
  BpeVocabulary& vocabulary = settings.vocabulary;
  vocabulary.tokens.assign(gguf.tokens().begin(), gguf.tokens().end());
  if (vocabulary.tokens.empty()) throw TokenizerError("tokenizer.ggml.tokens: there are none");
  for (int32_t id = 0; id < gguf.token_types_size() && id < gguf.tokens_size(); ++id) {
    const int type = gguf.token_types(id);
    if (type == kControl || type == kUserDefined) settings.added.push_back({id, gguf.tokens(id), type == kControl, false, false});
  }
  if (gguf.model() == "gpt2") {
    vocabulary.byte_level = true;
    vocabulary.merges = merges_of(gguf);
    vocabulary.ignore_merges = gguf.pre() == "llama-bpe" || gguf.pre() == "llama3" || gguf.pre() == "llama-v3";
    settings.steps = steps_of(gguf.pre());
  } else if (gguf.model() == "llama") {
    if (gguf.scores_size() != gguf.tokens_size()) {
      throw TokenizerError(fmt::format("tokenizer.ggml.scores: {} for {} tokens", gguf.scores_size(), gguf.tokens_size()));
    }
    vocabulary.scores.assign(gguf.scores().begin(), gguf.scores().end());
    vocabulary.byte_fallback = true;
    vocabulary.unknown_id = gguf.unknown_id();
    settings.spaces_to_blocks = true;
    settings.prepend_space = gguf.add_space_prefix();
  } else {
    throw TokenizerError(fmt::format("tokenizer.ggml.model: '{}' is not known (gpt2, llama are)", gguf.model()));
  }
  add_ends(gguf, spec, settings);
  return settings;
}

}  // namespace accrete::coordinator
