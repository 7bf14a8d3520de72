#include "launch/bench/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

namespace accrete::launch {
namespace {

// std::uniform_int_distribution differs between libraries; this does not.
int64_t draw(std::mt19937_64& source, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(source() % static_cast<uint64_t>(high - low + 1));
}

int64_t draw_length(std::mt19937_64& source, int64_t length, double ratio) {
  const auto spread = static_cast<int64_t>(static_cast<double>(length) * ratio);
  return std::max<int64_t>(1, draw(source, length - spread, length + spread));
}

struct Conversation {
  std::string question, answer;
};

std::vector<Conversation> read_conversations(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(fmt::format("--dataset-path {}: cannot read the file", path));
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_array()) throw std::runtime_error(fmt::format("--dataset-path {}: not a JSON array of conversations", path));
  std::vector<Conversation> found;
  for (const nlohmann::json& entry : json) {
    const auto turns = entry.find("conversations");
    if (turns == entry.end() || !turns->is_array() || turns->size() < 2) continue;
    const nlohmann::json &first = (*turns)[0], &second = (*turns)[1];
    if (!first.is_object() || !second.is_object()) continue;
    if (!first.contains("value") || !first["value"].is_string() || !second.contains("value") || !second["value"].is_string()) continue;
    found.push_back({first["value"], second["value"]});
  }
  return found;
}

}  // namespace

std::vector<BenchPrompt> random_prompts(const RandomPrompts& wanted) {
  std::mt19937_64 source(wanted.seed);
  std::vector<BenchPrompt> prompts(static_cast<size_t>(wanted.count));
  for (BenchPrompt& prompt : prompts) {
    prompt.tokens.resize(static_cast<size_t>(draw_length(source, wanted.input_len, wanted.range_ratio)));
    prompt.output_len = draw_length(source, wanted.output_len, wanted.range_ratio);
    for (int32_t& token : prompt.tokens) token = static_cast<int32_t>(draw(source, 0, wanted.vocab - 1));
  }
  return prompts;
}

std::vector<BenchPrompt> sharegpt_prompts(const SharegptPrompts& wanted, const TokenizeFn& tokenize) {
  std::vector<BenchPrompt> prompts;
  const auto count = static_cast<size_t>(wanted.count);
  for (const Conversation& conversation : read_conversations(wanted.path)) {
    if (prompts.size() == count) break;
    BenchPrompt prompt{.tokens = tokenize(conversation.question), .output_len = wanted.output_len};
    if (prompt.output_len == 0) prompt.output_len = static_cast<int64_t>(tokenize(conversation.answer).size());
    const auto total = static_cast<int64_t>(prompt.tokens.size()) + prompt.output_len;
    if (!prompt.tokens.empty() && prompt.output_len > 0 && total <= wanted.max_len) prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) throw std::runtime_error(fmt::format("--dataset-path {}: no conversation fits {} tokens", wanted.path, wanted.max_len));
  for (size_t i = 0; prompts.size() < count; ++i) prompts.push_back(BenchPrompt(prompts[i]));
  return prompts;
}

}  // namespace accrete::launch
