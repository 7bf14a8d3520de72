// BpeModel: byte-pair encoding of one pre-tokenized word (Sennrich et al. 2016), by ranked merges or by the scores of merged pieces
// (sentencepiece). The smallest rank merges first, the leftmost among equals; a heap keeps it at O(n log n).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace accrete::coordinator {

struct BpeVocabulary {
  std::vector<std::string> tokens;                          // by id; empty: no token
  std::vector<std::pair<std::string, std::string>> merges;  // by rank; unused with scores
  std::vector<float> scores;                                // by id: sentencepiece; empty: merges
  bool byte_level = false;      // tokens are spelled in GPT-2's byte alphabet
  bool byte_fallback = false;   // characters without a token become <0xNN> tokens
  bool ignore_merges = false;   // a word that is a token is that token
  int32_t unknown_id = -1;      // for characters without token or bytes; -1: they vanish
};

class BpeModel {
 public:
  // Throws TokenizerError naming `field` when a merge names no token.
  BpeModel(BpeVocabulary vocabulary, const std::string& field);

  // Appends the ids of `word`: in the byte alphabet with byte_level, else plain UTF-8.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;
  int32_t find(std::string_view token) const;  // -1: none
  const BpeVocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    double rank;
    int32_t id;
  };
  struct Symbol {
    int32_t id;
    int32_t previous, next;  // -1: none
    uint32_t length;         // of its spelling in the word
  };
  struct Candidate;

  void add_merge(const std::pair<std::string, std::string>& merge, double rank, const std::string& field);
  bool merge_of(int32_t left, int32_t right, Merge& merge) const;
  void spell(std::string_view word, std::vector<Symbol>& symbols) const;
  void spell_bytes(std::string_view character, std::vector<Symbol>& symbols) const;

  BpeVocabulary vocabulary_;
  std::unordered_map<std::string_view, int32_t> ids_;   // views into vocabulary_.tokens
  std::unordered_map<uint64_t, Merge> merges_;          // left id << 32 | right id
  std::vector<int32_t> byte_ids_;                       // [256] <0xNN>, -1: none
};

}  // namespace accrete::coordinator
