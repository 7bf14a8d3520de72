#include "worker/model/hf_tokenizer.h"

#include <charconv>
#include <filesystem>

#include "worker/model/json_file.h"
#include "worker/model/model_error.h"
#include "worker/model/utf8.h"

namespace accrete::worker {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The spec travels in one frame of at most 64 MiB.
constexpr int64_t kLargestTokenizerJson = 40 << 20;
constexpr int64_t kLargestSentencepiece = 16 << 20;
constexpr int64_t kLargestTokenizerConfig = 16 << 20;
constexpr int64_t kLargestTemplate = 1 << 20;
constexpr int kDeepest = 64;

// tokenizer.json without its tables: what kind of tokenizer it is, and what it puts around a text.
struct TokenizerJson {
  std::string type;
  bool byte_level = false;
  bool adds_bos = false, adds_eos = false;
};

bool holds_type(const json& part, const char* list, std::string_view type) {
  if (!part.is_object()) return false;
  if (part.value("type", json()) == type) return true;
  const auto parts = part.find(list);
  if (parts == part.end() || !parts->is_array()) return false;
  for (const json& inner : *parts) {
    if (holds_type(inner, list, type)) return true;
  }
  return false;
}

// The "single" template: [{"SpecialToken": {...}}, {"Sequence": {...}}, ...]; anywhere below a Sequence of processors.
const json* find_single_template(const json& processor) {
  if (!processor.is_object()) return nullptr;
  const auto single = processor.find("single");
  if (single != processor.end() && single->is_array() && !single->empty()) return &*single;
  const auto inner = processor.find("processors");
  if (inner == processor.end() || !inner->is_array()) return nullptr;
  for (const json& part : *inner) {
    if (const json* found = find_single_template(part)) return found;
  }
  return nullptr;
}

TokenizerJson inspect_tokenizer_json(const std::string& text, const std::string& where) {
  const auto drop_tables = [](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDeepest) throw ModelError("nested too deep");
    return event != json::parse_event_t::key || !(parsed == "vocab" || parsed == "merges" || parsed == "added_tokens");
  };
  json root;
  try {
    root = json::parse(text, drop_tables);
  } catch (const std::exception& error) {
    model_error("{}: not valid JSON: {}", where, error.what());
  }
  if (!root.is_object() || !root.contains("model") || !root["model"].is_object()) {
    model_error("{}: model is missing", where);
  }
  TokenizerJson found;
  const json type = root["model"].value("type", json("BPE"));
  found.type = type.is_string() ? type.get<std::string>() : "";
  found.byte_level = holds_type(root.value("pre_tokenizer", json()), "pretokenizers", "ByteLevel") ||
                     holds_type(root.value("decoder", json()), "decoders", "ByteLevel");
  const json processor = root.value("post_processor", json());
  if (const json* single = find_single_template(processor)) {
    found.adds_bos = single->front().is_object() && single->front().contains("SpecialToken");
    found.adds_eos = single->size() > 1 && single->back().is_object() && single->back().contains("SpecialToken");
  }
  return found;
}

// A token is written as a string or as {"content": string, ...}.
std::string token_text(const JsonObject& config, const char* field) {
  if (config.field(field).is_object()) return config.object(field)->text("content", "");
  return config.text(field, "");
}

std::string template_of(const JsonObject& config) {
  const json& found = config.field("chat_template");
  if (!found.is_array()) return config.text("chat_template", "");
  std::string first;
  for (const json& item : found) {
    const JsonObject named(item, config.where() + ": chat_template");
    const std::string text = named.text("template", "");
    if (named.text("name", "") == "default") return text;
    if (first.empty()) first = text;
  }
  return first;
}

void add_added_tokens(const JsonObject& config, rpc::TokenizerSpec& spec) {
  const auto decoder = config.object("added_tokens_decoder");
  if (!decoder) return;
  for (const auto& [key, value] : decoder->value().items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0) {
      model_error("{}: {} is no token id", decoder->where(), in_quotes(key));
    }
    const JsonObject entry(value, fmt::format("{}: {}", decoder->where(), id));
    rpc::AddedToken& token = *spec.add_added_tokens();
    token.set_id(id);
    token.set_content(entry.text("content", ""));
    token.set_special(entry.boolean("special", false));
    token.set_lstrip(entry.boolean("lstrip", false));
    token.set_rstrip(entry.boolean("rstrip", false));
    token.set_normalized(entry.boolean("normalized", !token.special()));
  }
}

void add_config(const JsonObject& config, rpc::TokenizerSpec& spec) {
  spec.set_chat_template(template_of(config));
  spec.set_bos_token(token_text(config, "bos_token"));
  spec.set_eos_token(token_text(config, "eos_token"));
  spec.set_add_bos_token(config.boolean("add_bos_token", spec.add_bos_token()));
  spec.set_add_eos_token(config.boolean("add_eos_token", spec.add_eos_token()));
  add_added_tokens(config, spec);
}

// Sets the kind, and what it adds when tokenizer_config.json does not say.
void add_tokenizer(const fs::path& directory, rpc::TokenizerSpec& spec) {
  const fs::path json_path = directory / "tokenizer.json", model_path = directory / "tokenizer.model";
  const bool has_json = fs::exists(json_path), has_model = fs::exists(model_path);
  if (has_json) {
    std::string text = read_text_file(json_path.string(), kLargestTokenizerJson);
    const TokenizerJson found = inspect_tokenizer_json(text, json_path.string());
    if (found.type == "BPE" && found.byte_level) {
      spec.set_tokenizer_json(std::move(text));
      spec.set_add_bos_token(found.adds_bos);
      spec.set_add_eos_token(found.adds_eos);
      return;
    }
    if (!has_model) {
      model_error("{}: a {} tokenizer that is no byte-level BPE, and there is no tokenizer.model beside it",
                  json_path.string(), in_quotes(found.type));
    }
  }
  if (!has_model) return;
  spec.set_sentencepiece(read_text_file(model_path.string(), kLargestSentencepiece));
  spec.set_add_bos_token(true);  // as transformers' Llama tokenizer
}

}  // namespace

rpc::TokenizerSpec read_hf_tokenizer(const std::string& directory) {
  const fs::path path(directory);
  rpc::TokenizerSpec spec;
  add_tokenizer(path, spec);
  if (fs::exists(path / "tokenizer_config.json")) {
    add_config(JsonObject::read((path / "tokenizer_config.json").string(), kLargestTokenizerConfig), spec);
  }
  if (fs::exists(path / "chat_template.jinja")) {
    const std::string file = (path / "chat_template.jinja").string();
    const std::string text = read_text_file(file, kLargestTemplate);
    if (!is_utf8(text)) model_error("{}: not UTF-8", file);
    spec.set_chat_template(text);
  }
  return spec;
}

}  // namespace accrete::worker
