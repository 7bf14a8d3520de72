// BpeTokenizer: the whole path of a BPE vocabulary: added tokens, normalizer, pre-tokenizer, merges, BOS and EOS. Made from tokenizer.json,
// tokenizer.model or GGUF metadata by the functions below.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/bpe_model.h"
#include "coordinator/text/split_pattern.h"
#include "coordinator/text/tokenizer.h"

namespace accrete::coordinator {

// One step of a pre-tokenizer. Pieces of a pattern's matches and of the rest stay apart ("isolated").
struct PreTokenizeStep {
  enum class Kind { pattern, digits };
  Kind kind = Kind::pattern;
  std::shared_ptr<const SplitPattern> pattern;
  bool individual_digits = true;
};

struct BpeSettings {
  BpeVocabulary vocabulary;
  std::string merges_field;
  std::vector<AddedToken> added;
  std::vector<PreTokenizeStep> steps;
  bool prepend_space = false;       // sentencepiece's dummy prefix
  bool prefix_first_only = false;   // it goes before the text alone, not before every stretch between added tokens
  bool spaces_to_blocks = false;    // ' ' is spelled U+2581
  std::vector<int32_t> before, after;  // what the post-processor puts around a text
  int32_t bos_id = -1, eos_id = -1;
};

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeSettings settings);

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string piece(int32_t id) const override;
  bool is_special(int32_t id) const override;
  int32_t vocab_size() const override;
  int32_t bos_id() const override { return settings_.bos_id; }
  int32_t eos_id() const override { return settings_.eos_id; }
  std::string token_string(int32_t id) const override;
  bool strips_first_space() const override { return settings_.prepend_space; }

 private:
  void encode_stretch(std::string_view text, bool first, std::vector<int32_t>& ids) const;
  void pre_tokenize(std::string_view text, size_t step, std::vector<int32_t>& ids) const;
  void split_digits(std::string_view text, size_t step, std::vector<int32_t>& ids) const;

  BpeSettings settings_;
  BpeModel model_;
  AddedTokens added_;
  SplitPattern digits_;
};

// The expression behind tokenizer.json's ByteLevel, GPT-2's.
inline constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

BpeSettings settings_from_gguf(const rpc::GgufTokenizer& gguf, const rpc::TokenizerSpec& spec);
BpeSettings settings_from_json(const std::string& tokenizer_json, const rpc::TokenizerSpec& spec);

BpeSettings settings_from_sentencepiece(const std::string& tokenizer_model, const rpc::TokenizerSpec& spec);

// A step that isolates the matches of a pattern.
PreTokenizeStep pattern_step(const std::string& pattern, const std::string& field);

}  // namespace accrete::coordinator
