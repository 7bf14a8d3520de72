// A Hugging Face tokenizer.json as BPE settings. What is not understood is refused by its path in the file: a tokenizer that is nearly right
// is wrong.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "coordinator/text/bpe_tokenizer.h"

namespace accrete::coordinator {
namespace {

using nlohmann::json;

constexpr int32_t kMaxId = 1 << 22;  // no vocabulary is near it; a hostile id must not size a table
constexpr const char* kBlock = "\xE2\x96\x81";

[[noreturn]] void refuse(const std::string& field, const std::string& what) {
  throw TokenizerError(fmt::format("tokenizer.json: {}: {}", field, what));
}

const json& member(const json& object, const char* key, const std::string& field) {
  if (!object.is_object() || !object.contains(key)) refuse(field + "." + key, "is missing");
  return object.at(key);
}

std::string text(const json& value, const std::string& field) {
  if (!value.is_string()) refuse(field, "must be a string");
  return value.get<std::string>();
}

int32_t token_id(const json& value, const std::string& field) {
  if (!value.is_number_integer()) refuse(field, "must be a token id");
  const auto id = value.get<int64_t>();
  if (id < 0 || id > kMaxId) refuse(field, fmt::format("{} is no token id", id));
  return static_cast<int32_t>(id);
}

bool flag(const json& object, const char* key, bool otherwise) {
  return object.contains(key) && object.at(key).is_boolean() ? object.at(key).get<bool>() : otherwise;
}

std::string type_of(const json& object, const std::string& field) { return text(member(object, "type", field), field + ".type"); }

void put_token(std::vector<std::string>& tokens, int32_t id, const std::string& token, const std::string& field) {
  if (id >= static_cast<int32_t>(tokens.size())) tokens.resize(id + 1);
  if (!tokens[id].empty() && tokens[id] != token) refuse(field, fmt::format("id {} stands for '{}' and '{}'", id, tokens[id], token));
  tokens[id] = token;
}

void read_model(const json& model, BpeSettings& settings) {
  if (type_of(model, "model") != "BPE") refuse("model.type", fmt::format("'{}' is not supported, BPE is", type_of(model, "model")));
  BpeVocabulary& vocabulary = settings.vocabulary;
  const json& vocab = member(model, "vocab", "model");
  if (!vocab.is_object() || vocab.empty()) refuse("model.vocab", "must be an object of tokens");
  for (const auto& [token, id] : vocab.items()) put_token(vocabulary.tokens, token_id(id, "model.vocab['" + token + "']"), token, "model.vocab");
  const json& merges = member(model, "merges", "model");
  if (!merges.is_array()) refuse("model.merges", "must be an array");
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string field = fmt::format("model.merges[{}]", i);
    if (merges[i].is_array() && merges[i].size() == 2) {
      vocabulary.merges.emplace_back(text(merges[i][0], field), text(merges[i][1], field));
      continue;
    }
    const std::string merge = text(merges[i], field);
    const size_t space = merge.find(' ');
    if (space == std::string::npos) refuse(field, "has no space");
    vocabulary.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  vocabulary.byte_fallback = flag(model, "byte_fallback", false);
  vocabulary.ignore_merges = flag(model, "ignore_merges", false);
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.contains(key) && model.at(key).is_string() && !model.at(key).get<std::string>().empty()) refuse(std::string("model.") + key, "is not supported");
  }
  if (!model.contains("unk_token") || !model.at("unk_token").is_string()) return;
  const auto unknown = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), model.at("unk_token").get<std::string>());
  if (unknown != vocabulary.tokens.end()) vocabulary.unknown_id = static_cast<int32_t>(unknown - vocabulary.tokens.begin());
}

void read_added(const json& whole, BpeSettings& settings) {
  if (!whole.contains("added_tokens") || whole.at("added_tokens").is_null()) return;
  const json& added = whole.at("added_tokens");
  if (!added.is_array()) refuse("added_tokens", "must be an array");
  for (size_t i = 0; i < added.size(); ++i) {
    const std::string field = fmt::format("added_tokens[{}]", i);
    AddedToken token;
    token.id = token_id(member(added[i], "id", field), field + ".id");
    token.content = text(member(added[i], "content", field), field + ".content");
    token.special = flag(added[i], "special", false);
    token.lstrip = flag(added[i], "lstrip", false);
    token.rstrip = flag(added[i], "rstrip", false);
    settings.added.push_back(std::move(token));
  }
}

void add_step(const json& step, const std::string& field, BpeSettings& settings);

void add_split(const json& step, const std::string& field, BpeSettings& settings) {
  const json& pattern = member(step, "pattern", field);
  const std::string behavior = text(member(step, "behavior", field), field + ".behavior");
  if (behavior != "Isolated" || flag(step, "invert", false)) refuse(field + ".behavior", fmt::format("'{}' is not supported, Isolated is", behavior));
  if (!pattern.contains("Regex")) refuse(field + ".pattern", "only Regex is supported");
  settings.steps.push_back(pattern_step(text(pattern.at("Regex"), field + ".pattern.Regex"), field + ".pattern.Regex"));
}

void add_byte_level(const json& step, const std::string& field, BpeSettings& settings) {
  if (flag(step, "add_prefix_space", true)) refuse(field + ".add_prefix_space", "true is not supported");
  settings.vocabulary.byte_level = true;
  if (flag(step, "use_regex", true)) settings.steps.push_back(pattern_step(kGpt2Pattern, field));
}

void add_step(const json& step, const std::string& field, BpeSettings& settings) {
  const std::string type = type_of(step, field);
  if (type == "Sequence") {
    const json& steps = member(step, "pretokenizers", field);
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::string inner = fmt::format("{}.pretokenizers[{}]", field, i);
      if (steps.is_array() && type_of(steps[i], inner) == "Sequence") refuse(inner, "a sequence in a sequence is not supported");
      add_step(steps.at(i), inner, settings);
    }
  } else if (type == "Split") {
    add_split(step, field, settings);
  } else if (type == "Digits") {
    settings.steps.push_back({PreTokenizeStep::Kind::digits, nullptr, flag(step, "individual_digits", false)});
  } else if (type == "ByteLevel") {
    add_byte_level(step, field, settings);
  } else if (type == "Metaspace") {
    settings.spaces_to_blocks = true;
    const std::string scheme = step.contains("prepend_scheme") ? text(step.at("prepend_scheme"), field + ".prepend_scheme") : "always";
    settings.prepend_space = scheme != "never";
    settings.prefix_first_only = scheme == "first";
    if (flag(step, "split", true)) settings.steps.push_back(pattern_step(fmt::format("{0}?[^{0}]+|{0}", kBlock), field));
  } else {
    refuse(field + ".type", fmt::format("'{}' is not supported", type));
  }
}

// Llama 2's: Prepend U+2581, then Replace ' ' by it.
void read_normalizer(const json& normalizer, const std::string& field, BpeSettings& settings) {
  if (normalizer.is_null()) return;
  const std::string type = type_of(normalizer, field);
  if (type == "Sequence") {
    const json& parts = member(normalizer, "normalizers", field);
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string inner = fmt::format("{}.normalizers[{}]", field, i);
      if (type_of(parts.at(i), inner) == "Sequence") refuse(inner, "a sequence in a sequence is not supported");
      read_normalizer(parts.at(i), inner, settings);
    }
  } else if (type == "Prepend" && text(member(normalizer, "prepend", field), field) == kBlock) {
    settings.prepend_space = true;
  } else if (type == "Replace" && text(member(normalizer, "content", field), field) == kBlock &&
             member(normalizer, "pattern", field).value("String", "") == " ") {
    settings.spaces_to_blocks = true;
  } else {
    refuse(field + ".type", fmt::format("'{}' is not supported", type));
  }
}

// TemplateProcessing's special tokens around "$A" of a single text; ByteLevel adds none.
void read_post_processor(const json& processor, const std::string& field, BpeSettings& settings) {
  if (processor.is_null()) return;
  const std::string type = type_of(processor, field);
  if (type == "ByteLevel") return;
  if (type == "Sequence") {
    for (const json& part : member(processor, "processors", field)) {
      if (type_of(part, field) == "Sequence") refuse(field, "a sequence in a sequence is not supported");
      read_post_processor(part, field + ".processors", settings);
    }
    return;
  }
  if (type != "TemplateProcessing") refuse(field + ".type", fmt::format("'{}' is not supported", type));
  bool after = false;
  for (const json& part : member(processor, "single", field)) {
    if (part.contains("Sequence")) {
      after = true;
      continue;
    }
    const std::string name = text(member(member(part, "SpecialToken", field), "id", field), field);
    const json& ids = member(member(member(processor, "special_tokens", field), name.c_str(), field), "ids", field);
    for (const json& id : ids) (after ? settings.after : settings.before).push_back(token_id(id, field));
  }
}

int32_t id_of(const BpeSettings& settings, const std::string& token) {
  for (const AddedToken& added : settings.added) {
    if (added.content == token) return added.id;
  }
  const auto& tokens = settings.vocabulary.tokens;
  const auto found = token.empty() ? tokens.end() : std::find(tokens.begin(), tokens.end(), token);
  return found == tokens.end() ? -1 : static_cast<int32_t>(found - tokens.begin());
}

}  // namespace

BpeSettings settings_from_json(const std::string& tokenizer_json, const rpc::TokenizerSpec& spec) {
  BpeSettings settings;
  settings.merges_field = "model.merges";
  try {
    // Depth is bounded: nothing that is understood nests deeper, and a parser of ours must not run out of stack.
    const json whole = json::parse(tokenizer_json, [](int depth, json::parse_event_t, json&) {
      if (depth > 32) throw TokenizerError("tokenizer.json: it nests deeper than 32 levels");
      return true;
    });
    if (!whole.is_object()) throw TokenizerError("tokenizer.json: it is no object");
    read_model(member(whole, "model", "tokenizer"), settings);
    read_added(whole, settings);
    if (whole.contains("normalizer")) read_normalizer(whole.at("normalizer"), "normalizer", settings);
    if (whole.contains("pre_tokenizer") && !whole.at("pre_tokenizer").is_null()) add_step(whole.at("pre_tokenizer"), "pre_tokenizer", settings);
    if (whole.contains("post_processor")) read_post_processor(whole.at("post_processor"), "post_processor", settings);
  } catch (const json::exception& error) {
    throw TokenizerError(fmt::format("tokenizer.json: {}", error.what()));
  }
  settings.bos_id = id_of(settings, spec.bos_token());
  settings.eos_id = id_of(settings, spec.eos_token());
  return settings;
}

}  // namespace accrete::coordinator
