// ModelText: the text side of a model for commands without a server: prompts to ids, ids to text. Thread-safe after construction.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/proto/accrete.pb.h"

namespace accrete::launch {

class ModelText {
 public:
  // Throws std::runtime_error when the model brings no tokenizer (dummy weights) or one that is not understood.
  explicit ModelText(const rpc::TokenizerSpec& spec, const std::string& chat_template = "");
  ~ModelText();

  // Text as it is, with the model's own beginning-of-sequence token where it wants one.
  std::vector<int32_t> encode(std::string_view text) const;
  // One user message through the chat template, ready for the assistant's answer.
  std::vector<int32_t> encode_chat(const std::string& system, const std::string& user) const;
  bool has_chat_template() const;

  // Turns one sequence's ids into text piece by piece; a piece never ends inside a UTF-8 character.
  class Stream {
   public:
    explicit Stream(const ModelText& text);
    Stream(Stream&&) noexcept;
    ~Stream();
    std::string feed(int32_t token);
    std::string finish();

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A file's whole text; "-" is stdin. Throws std::runtime_error naming `flag` and the path.
std::string read_text(const std::string& path, const std::string& flag);

}  // namespace accrete::launch
