// ModelEntry: a served model as the coordinator knows it, from the first replica that brought it: card, tokenizer, chat template. Immutable.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"
#include "net/proto/accrete.pb.h"

namespace accrete::coordinator {

struct ModelEntry {
  rpc::ModelCard card;                        // without the tokenizer's tables
  std::unique_ptr<const Tokenizer> tokenizer; // null: token ids only, and `no_text` says why
  std::string no_text;
  rpc::TokenizerSpec words;                   // special tokens and template as the model brought them, without tables
  std::optional<ChatTemplate> chat;           // none: `no_chat` says why
  std::string no_chat;
  std::time_t created = 0;
};

// Never throws for a model without text or chat: those requests are refused with the reason.
std::shared_ptr<const ModelEntry> make_model_entry(const rpc::ModelCard& card, const std::string& chat_template);

}  // namespace accrete::coordinator
