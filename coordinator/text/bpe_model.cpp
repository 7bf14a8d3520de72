#include "coordinator/text/bpe_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "coordinator/text/tokenizer.h"
#include "coordinator/text/utf8.h"

namespace accrete::coordinator {

// A pair that may merge: valid while both symbols are what they were.
struct BpeModel::Candidate {
  double rank;
  int32_t left, right;        // symbols
  int32_t left_id, right_id;  // what they were
  int32_t merged;
  bool operator<(const Candidate& other) const {  // std::priority_queue: greatest first
    return rank != other.rank ? rank > other.rank : left > other.left;
  }
};

BpeModel::BpeModel(BpeVocabulary vocabulary, const std::string& field) : vocabulary_(std::move(vocabulary)), byte_ids_(256, -1) {
  ids_.reserve(vocabulary_.tokens.size());
  for (size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
    if (!vocabulary_.tokens[id].empty()) ids_.emplace(vocabulary_.tokens[id], static_cast<int32_t>(id));
  }
  for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = find(fmt::format("<0x{:02X}>", byte));
  merges_.reserve(vocabulary_.merges.size());
  for (size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) add_merge(vocabulary_.merges[rank], static_cast<double>(rank), field);
}

void BpeModel::add_merge(const std::pair<std::string, std::string>& merge, double rank, const std::string& field) {
  const int32_t left = find(merge.first), right = find(merge.second), merged = find(merge.first + merge.second);
  if (left < 0 || right < 0 || merged < 0) {
    throw TokenizerError(fmt::format("tokenizer: {}[{}]: '{} {}' names a piece that is no token", field, rank, merge.first, merge.second));
  }
  merges_.emplace(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right), Merge{rank, merged});
}

int32_t BpeModel::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

bool BpeModel::merge_of(int32_t left, int32_t right, Merge& merge) const {
  if (left < 0 || right < 0) return false;
  if (!vocabulary_.scores.empty()) {
    const int32_t id = find(vocabulary_.tokens[left] + vocabulary_.tokens[right]);
    if (id < 0) return false;
    merge = {-static_cast<double>(vocabulary_.scores[id]), id};
    return true;
  }
  const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right));
  if (found == merges_.end()) return false;
  merge = found->second;
  return true;
}

void BpeModel::spell_bytes(std::string_view character, std::vector<Symbol>& symbols) const {
  const bool all = std::all_of(character.begin(), character.end(), [&](char c) { return byte_ids_[static_cast<uint8_t>(c)] >= 0; });
  if (vocabulary_.byte_fallback && all) {
    for (char c : character) symbols.push_back({byte_ids_[static_cast<uint8_t>(c)], 0, 0, 1});
  } else if (vocabulary_.unknown_id >= 0) {
    symbols.push_back({vocabulary_.unknown_id, 0, 0, static_cast<uint32_t>(character.size())});
  }
}

// The word's characters as symbols, linked.
void BpeModel::spell(std::string_view word, std::vector<Symbol>& symbols) const {
  while (!word.empty()) {
    const Utf8Step step = utf8_step(word);
    const std::string_view character = word.substr(0, step.bytes);
    const int32_t id = find(character);
    if (id >= 0) symbols.push_back({id, 0, 0, static_cast<uint32_t>(step.bytes)});
    else spell_bytes(character, symbols);
    word.remove_prefix(step.bytes);
  }
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
}

void BpeModel::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (vocabulary_.ignore_merges) {
    if (const int32_t whole = find(word); whole >= 0) return ids.push_back(whole);
  }
  std::vector<Symbol> symbols;
  spell(word, symbols);
  std::priority_queue<Candidate> queue;
  const auto consider = [&](int32_t left, int32_t right) {
    Merge merge;
    if (left < 0 || right < 0 || !merge_of(symbols[left].id, symbols[right].id, merge)) return;
    queue.push({merge.rank, left, right, symbols[left].id, symbols[right].id, merge.id});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i), static_cast<int32_t>(i) + 1);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    if (left.length == 0 || right.length == 0 || left.next != best.right || left.id != best.left_id || right.id != best.right_id) continue;
    left.id = best.merged;
    left.length += right.length;
    left.next = right.next;
    right.length = 0;
    if (left.next >= 0) symbols[left.next].previous = best.left;
    consider(left.previous, best.left);
    consider(best.left, left.next);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.length > 0) ids.push_back(symbol.id);
  }
}

}  // namespace accrete::coordinator
