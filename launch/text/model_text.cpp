#include "launch/text/model_text.h"

#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <optional>
#include <stdexcept>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/tokenizer.h"

namespace accrete::launch {

struct ModelText::State {
  std::unique_ptr<coordinator::Tokenizer> tokenizer;
  std::optional<coordinator::ChatTemplate> chat;
};

struct ModelText::Stream::State {
  coordinator::IncrementalDetokenizer detokenizer;
};

ModelText::ModelText(const rpc::TokenizerSpec& spec, const std::string& chat_template) : state_(std::make_unique<State>()) {
  if (spec.kind_case() == rpc::TokenizerSpec::KIND_NOT_SET) {
    throw std::runtime_error("the model brings no tokenizer (dummy weights have none), so it cannot read or write text");
  }
  state_->tokenizer = coordinator::Tokenizer::make(spec);
  if (!chat_template.empty() || coordinator::ChatTemplate::has_own(spec)) state_->chat = coordinator::ChatTemplate::make(spec, chat_template);
}

ModelText::~ModelText() = default;

std::vector<int32_t> ModelText::encode(std::string_view text) const { return state_->tokenizer->encode(text); }

std::vector<int32_t> ModelText::encode_chat(const std::string& system, const std::string& user) const {
  std::vector<coordinator::Message> messages;
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", user});
  return state_->tokenizer->encode(state_->chat.value().render(messages), {.add_special_tokens = false, .parse_special = true});
}

bool ModelText::has_chat_template() const { return state_->chat.has_value(); }

ModelText::Stream::Stream(const ModelText& text)
    : state_(std::make_unique<State>(State{coordinator::IncrementalDetokenizer(*text.state_->tokenizer)})) {}
ModelText::Stream::Stream(Stream&&) noexcept = default;
ModelText::Stream::~Stream() = default;

std::string ModelText::Stream::feed(int32_t token) { return state_->detokenizer.push(token); }
std::string ModelText::Stream::finish() { return state_->detokenizer.flush(); }

std::string read_text(const std::string& path, const std::string& flag) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file.is_open() || file.bad()) throw std::runtime_error(fmt::format("{} {}: cannot read the file", flag, path));
  return text;
}

}  // namespace accrete::launch
