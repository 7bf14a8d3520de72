#include "coordinator/text/chat_template.h"

#include <fmt/format.h>

#include <ctime>
#include <optional>
#include <string_view>
#include <utility>

#include "coordinator/text/utf8.h"

namespace accrete::coordinator {
namespace {

using Kind = ChatTemplate::Kind;

constexpr std::pair<const char*, Kind> kNames[] = {
    {"llama-2", Kind::llama_2}, {"llama-3", Kind::llama_3}, {"chatml", Kind::chatml}, {"zephyr", Kind::zephyr}};
constexpr const char* kChoices = "llama-2, llama-3, chatml, zephyr";
constexpr std::string_view kChatmlSystem = "<|im_start|>system\n";

std::optional<Kind> recognise(const std::string& source) {
  const auto holds = [&](const char* text) { return source.find(text) != std::string::npos; };
  if (holds("<|im_start|>")) return Kind::chatml;
  if (holds("<|start_header_id|>")) return Kind::llama_3;
  if (holds("[INST]") && holds("<<SYS>>")) return Kind::llama_2;
  if (holds("<|user|>") && holds("<|assistant|>") && holds("eos_token")) return Kind::zephyr;
  return std::nullopt;
}

// As Python's str.strip(), which the templates call: Unicode's white space and ASCII's four separators.
std::string strip(std::string_view text) {
  const auto separator = [](char c) { return c >= 0x1c && c <= 0x1f; };
  for (size_t before = text.size() + 1; text.size() < before;) {
    before = text.size();
    text = strip_back(strip_front(text));
    while (!text.empty() && separator(text.front())) text.remove_prefix(1);
    while (!text.empty() && separator(text.back())) text.remove_suffix(1);
  }
  return std::string(text);
}

// The system prompt that a ChatML template writes when the messages bring none, from the literal in its source.
std::string default_system_of(std::string source) {
  for (size_t at = source.find("\\n"); at != std::string::npos; at = source.find("\\n", at)) source.replace(at, 2, 1, '\n');
  const size_t begin = source.find(kChatmlSystem);
  if (begin == std::string::npos) return "";
  const size_t text = begin + kChatmlSystem.size(), end = source.find("<|im_end|>", text);
  const std::string literal = end == std::string::npos ? "" : source.substr(text, end - text);
  return literal.find_first_of("'\"{}") == std::string::npos ? literal : "";
}

// Llama 3.1 and later open with the dates of their knowledge.
std::string llama_3_dates(const std::string& source) {
  if (source.find("Cutting Knowledge Date") == std::string::npos) return "";
  std::string today = "26 Jul 2024";
  if (source.find("strftime_now") != std::string::npos) {
    char date[32];
    const std::time_t now = std::time(nullptr);
    std::tm broken{};
    gmtime_r(&now, &broken);
    today.assign(date, std::strftime(date, sizeof(date), "%d %b %Y", &broken));
  }
  return fmt::format("Cutting Knowledge Date: December 2023\nToday Date: {}\n\n", today);
}

std::string field_of(size_t index) { return fmt::format("messages[{}].role", index); }

void check_known_role(const std::vector<Message>& messages, size_t index) {
  const std::string& role = messages[index].role;
  if (role == "system" || role == "user" || role == "assistant") return;
  throw MessageError(field_of(index), fmt::format("{}: '{}' is none of system, user, assistant", field_of(index), role));
}

}  // namespace

ChatTemplate::ChatTemplate(Kind kind, const rpc::TokenizerSpec& spec) : kind_(kind), bos_(spec.bos_token()), eos_(spec.eos_token()) {
  if (kind_ == Kind::chatml) default_system_ = default_system_of(spec.chat_template());
  if (kind_ == Kind::llama_3) default_system_ = llama_3_dates(spec.chat_template());
  if (bos_.empty() && kind_ == Kind::llama_3) bos_ = "<|begin_of_text|>";
  if (bos_.empty() && kind_ == Kind::llama_2) bos_ = "<s>";
  if (eos_.empty() && (kind_ == Kind::llama_2 || kind_ == Kind::zephyr)) eos_ = "</s>";
}

ChatTemplate ChatTemplate::make(const rpc::TokenizerSpec& spec, const std::string& chosen) {
  for (const auto& [name, kind] : kNames) {
    if (chosen == name) return ChatTemplate(kind, spec);
  }
  if (!chosen.empty()) throw ChatTemplateError(fmt::format("--chat-template {}: choose one of {}", chosen, kChoices));
  if (spec.chat_template().empty()) {
    throw ChatTemplateError(fmt::format("the model brings no chat template; choose one with --chat-template ({})", kChoices));
  }
  if (const auto kind = recognise(spec.chat_template())) return ChatTemplate(*kind, spec);
  throw ChatTemplateError(fmt::format("the model's chat template is not known: it begins '{}'; choose one with --chat-template ({})",
                                      spec.chat_template().substr(0, 80), kChoices));
}

const char* ChatTemplate::name() const {
  for (const auto& [name, kind] : kNames) {
    if (kind == kind_) return name;
  }
  return "";
}

std::string ChatTemplate::render(const std::vector<Message>& messages, bool add_generation_prompt) const {
  if (messages.empty()) throw MessageError("messages", "messages: at least one is needed");
  for (size_t i = 0; i < messages.size(); ++i) check_known_role(messages, i);
  switch (kind_) {
    case Kind::chatml: return render_chatml(messages, add_generation_prompt);
    case Kind::zephyr: return render_zephyr(messages, add_generation_prompt);
    case Kind::llama_2: return render_llama_2(messages);
    case Kind::llama_3: return render_llama_3(messages, add_generation_prompt);
  }
  return "";
}

std::string ChatTemplate::render_chatml(const std::vector<Message>& messages, bool add_generation_prompt) const {
  std::string text;
  const auto add = [&](const std::string& role, const std::string& content) {
    text += fmt::format("<|im_start|>{}\n{}<|im_end|>\n", role, content);
  };
  if (!default_system_.empty() && messages[0].role != "system") add("system", default_system_);
  for (const Message& message : messages) add(message.role, message.content);
  if (add_generation_prompt) text += "<|im_start|>assistant\n";
  return text;
}

std::string ChatTemplate::render_zephyr(const std::vector<Message>& messages, bool add_generation_prompt) const {
  std::string text;
  for (const Message& message : messages) text += fmt::format("<|{}|>\n{}{}\n", message.role, message.content, eos_);
  if (add_generation_prompt) text += "<|assistant|>\n";
  return text;
}

std::string ChatTemplate::render_llama_2(const std::vector<Message>& messages) const {
  const size_t first = messages[0].role == "system" ? 1 : 0;
  std::string text;
  for (size_t i = first; i < messages.size(); ++i) {
    const bool user = (i - first) % 2 == 0;
    if (messages[i].role != (user ? "user" : "assistant")) {
      throw MessageError(field_of(i), field_of(i) + ": after an optional system message the roles must alternate user, assistant, user, ...");
    }
    std::string content = messages[i].content;
    if (i == first && first == 1) content = fmt::format("<<SYS>>\n{}\n<</SYS>>\n\n{}", messages[0].content, content);
    text += user ? fmt::format("{}[INST] {} [/INST]", bos_, strip(content)) : fmt::format(" {} {}", strip(content), eos_);
  }
  return text;
}

std::string ChatTemplate::render_llama_3(const std::vector<Message>& messages, bool add_generation_prompt) const {
  std::string text = bos_;
  const auto add = [&](const std::string& role, const std::string& content) {
    text += fmt::format("<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>", role, content);
  };
  const bool dated = !default_system_.empty(), own_system = messages[0].role == "system";
  if (dated) add("system", default_system_ + (own_system ? strip(messages[0].content) : ""));
  for (size_t i = dated && own_system ? 1 : 0; i < messages.size(); ++i) add(messages[i].role, strip(messages[i].content));
  if (add_generation_prompt) text += "<|start_header_id|>assistant<|end_header_id|>\n\n";
  return text;
}

}  // namespace accrete::coordinator
