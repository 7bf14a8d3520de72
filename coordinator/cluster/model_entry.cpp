#include "coordinator/cluster/model_entry.h"

namespace accrete::coordinator {

std::shared_ptr<const ModelEntry> make_model_entry(const rpc::ModelCard& card, const std::string& chat_template) {
  auto entry = std::make_shared<ModelEntry>();
  entry->card = card;
  entry->created = std::time(nullptr);
  try {
    entry->tokenizer = Tokenizer::make(card.tokenizer());
  } catch (const std::exception& error) {
    entry->no_text = error.what();
  }
  try {
    entry->chat = ChatTemplate::make(card.tokenizer(), chat_template);
  } catch (const std::exception& error) {
    entry->no_chat = error.what();
  }
  entry->card.clear_tokenizer();
  entry->words = card.tokenizer();
  entry->words.clear_kind();
  entry->words.clear_added_tokens();
  return entry;
}

}  // namespace accrete::coordinator
