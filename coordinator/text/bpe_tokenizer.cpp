#include "coordinator/text/bpe_tokenizer.h"

#include "coordinator/text/byte_alphabet.h"
#include "coordinator/text/utf8.h"

namespace accrete::coordinator {
namespace {

constexpr std::string_view kBlock = "\xE2\x96\x81";  // U+2581

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) text.replace(at, from.size(), to);
}

// The byte of "<0xNN>", or -1.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace

PreTokenizeStep pattern_step(const std::string& pattern, const std::string& field) {
  return {PreTokenizeStep::Kind::pattern, std::make_shared<SplitPattern>(pattern, field), false};
}

BpeTokenizer::BpeTokenizer(BpeSettings settings)
    : settings_(std::move(settings)),
      model_(std::move(settings_.vocabulary), settings_.merges_field),
      added_(settings_.added),
      digits_(R"(\p{N})", "digits") {}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  const std::string valid = replace_invalid(text);
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = settings_.before;
  bool first = true;
  added_.split(
      valid, options.parse_special,
      [&](std::string_view stretch) {
        encode_stretch(stretch, first, ids);
        first = false;
      },
      [&](int32_t id) {
        ids.push_back(id);
        first = false;
      });
  if (options.add_special_tokens) ids.insert(ids.end(), settings_.after.begin(), settings_.after.end());
  return ids;
}

void BpeTokenizer::encode_stretch(std::string_view text, bool first, std::vector<int32_t>& ids) const {
  if (!settings_.spaces_to_blocks) return pre_tokenize(text, 0, ids);
  std::string normalized(text);
  if (settings_.prepend_space && (first || !settings_.prefix_first_only)) normalized.insert(0, " ");
  replace_all(normalized, " ", kBlock);
  pre_tokenize(normalized, 0, ids);
}

void BpeTokenizer::split_digits(std::string_view text, size_t step, std::vector<int32_t>& ids) const {
  std::string run;  // of digits, when they stay together
  digits_.split(text, [&](std::string_view piece, bool match) {
    if (match && !settings_.steps[step].individual_digits) {
      run += piece;
      return;
    }
    if (!run.empty()) pre_tokenize(run, step + 1, ids);
    run.clear();
    pre_tokenize(piece, step + 1, ids);
  });
  if (!run.empty()) pre_tokenize(run, step + 1, ids);
}

void BpeTokenizer::pre_tokenize(std::string_view text, size_t step, std::vector<int32_t>& ids) const {
  if (step == settings_.steps.size()) {
    if (model_.vocabulary().byte_level) model_.encode(to_byte_alphabet(text), ids);
    else model_.encode(text, ids);
    return;
  }
  if (settings_.steps[step].kind == PreTokenizeStep::Kind::digits) return split_digits(text, step, ids);
  settings_.steps[step].pattern->split(text, [&](std::string_view piece, bool) { pre_tokenize(piece, step + 1, ids); });
}

std::string BpeTokenizer::token_string(int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  const auto& tokens = model_.vocabulary().tokens;
  return id >= 0 && id < static_cast<int32_t>(tokens.size()) ? tokens[id] : "";
}

std::string BpeTokenizer::piece(int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  std::string token = token_string(id);
  if (model_.vocabulary().byte_level) return from_byte_alphabet(token);
  if (model_.vocabulary().byte_fallback) {
    if (const int byte = byte_of(token); byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  replace_all(token, kBlock, " ");
  return token;
}

bool BpeTokenizer::is_special(int32_t id) const {
  const AddedToken* added = added_.find(id);
  return added != nullptr && added->special;
}

int32_t BpeTokenizer::vocab_size() const {
  auto size = static_cast<int32_t>(model_.vocabulary().tokens.size());
  for (const AddedToken& added : added_.all()) size = std::max(size, added.id + 1);
  return size;
}

}  // namespace accrete::coordinator
