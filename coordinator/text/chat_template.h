// ChatTemplate: messages to the prompt a chat model was trained on. The four public families are known by their tell-tale tokens in the
// model's own Jinja source; the source itself is never run.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "net/proto/accrete.pb.h"

namespace accrete::coordinator {

struct Message {
  std::string role;
  std::string content;
};

// An unknown template or choice of one.
struct ChatTemplateError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Messages that the template cannot hold; `param` names the field, e.g. "messages[1].role".
struct MessageError : std::runtime_error {
  MessageError(std::string where, const std::string& what) : std::runtime_error(what), param(std::move(where)) {}
  std::string param;
};

class ChatTemplate {
 public:
  enum class Kind { llama_2, llama_3, chatml, zephyr };

  // The template the model brought, or `chosen` (llama-2, llama-3, chatml, zephyr). Throws ChatTemplateError when the model's is unknown and
  // none was chosen, naming its beginning, and when the choice is unknown.
  static ChatTemplate make(const rpc::TokenizerSpec& spec, const std::string& chosen = "");
  // True when the model brought a template at all.
  static bool has_own(const rpc::TokenizerSpec& spec) { return !spec.chat_template().empty(); }

  // The prompt's text, to be encoded with special tokens parsed and none added: it names its own. Throws MessageError.
  std::string render(const std::vector<Message>& messages, bool add_generation_prompt = true) const;
  Kind kind() const { return kind_; }
  const char* name() const;

 private:
  ChatTemplate(Kind kind, const rpc::TokenizerSpec& spec);
  std::string render_chatml(const std::vector<Message>& messages, bool add_generation_prompt) const;
  std::string render_zephyr(const std::vector<Message>& messages, bool add_generation_prompt) const;
  std::string render_llama_2(const std::vector<Message>& messages) const;
  std::string render_llama_3(const std::vector<Message>& messages, bool add_generation_prompt) const;

  Kind kind_;
  std::string bos_, eos_;
  std::string default_system_;  // put first when the messages bring none (SmolLM2's template, Qwen's)
};

}  // namespace accrete::coordinator
