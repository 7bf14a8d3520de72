// Tokenizer: text to token ids and back, whatever file the vocabulary came from. Immutable after construction, thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "net/proto/accrete.pb.h"

namespace accrete::coordinator {

// A vocabulary that is missing, damaged or of an unknown kind; the message names the field.
struct TokenizerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct EncodeOptions {
  bool add_special_tokens = true;  // what the model's own post-processor puts around a text, e.g. BOS
  bool parse_special = true;       // special tokens written out in the text become their ids, as vLLM and Hugging Face do
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Throws TokenizerError.
  static std::unique_ptr<Tokenizer> make(const rpc::TokenizerSpec& spec);

  // Bytes that are not UTF-8 count as U+FFFD.
  virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  // The bytes that a token stands for, which may be part of a character. Special tokens: their text. Ids without a token: nothing.
  virtual std::string piece(int32_t id) const = 0;
  virtual bool is_special(int32_t id) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t bos_id() const = 0;  // -1: none
  virtual int32_t eos_id() const = 0;
  // A token's own name, as in the vocabulary file; for logprobs.
  virtual std::string token_string(int32_t id) const = 0;
  // Whether decoding drops one space before the first token (sentencepiece's dummy prefix).
  virtual bool strips_first_space() const { return false; }
  // Whether each byte of what is not UTF-8 becomes its own U+FFFD (sentencepiece's byte tokens), or each maximal start
  // of a character becomes one, as in Python's errors="replace".
  virtual bool replaces_each_byte() const { return false; }

  // All ids as text, valid UTF-8.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;
};

}  // namespace accrete::coordinator
