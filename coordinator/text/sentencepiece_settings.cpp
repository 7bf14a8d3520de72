// A sentencepiece tokenizer.model (BPE, as Llama 2's) as BPE settings: pieces merge by score; every stretch between added tokens gets the dummy
// prefix, as in the legacy form of Hugging Face's LlamaTokenizer.
#include <fmt/format.h>

#include "coordinator/proto/sentencepiece_model.pb.h"
#include "coordinator/text/bpe_tokenizer.h"

namespace accrete::coordinator {
namespace {

using sentencepiece::Model;

void check_kind(const Model& model) {
  if (model.pieces_size() == 0) throw TokenizerError("tokenizer.model: it has no pieces");
  if (model.trainer_spec().model_type() != Model::Trainer::BPE) throw TokenizerError("tokenizer.model: trainer_spec.model_type is not BPE");
  if (!model.normalizer_spec().precompiled_charsmap().empty()) {
    throw TokenizerError("tokenizer.model: normalizer_spec.precompiled_charsmap: only the identity normalizer is supported");
  }
  if (model.normalizer_spec().remove_extra_whitespaces()) {
    throw TokenizerError("tokenizer.model: normalizer_spec.remove_extra_whitespaces is not supported");
  }
}

void add_config_tokens(const rpc::TokenizerSpec& spec, std::vector<AddedToken>& tokens) {
  constexpr int32_t kMaxId = 1 << 22;
  for (const rpc::AddedToken& added : spec.added_tokens()) {
    if (added.id() < 0 || added.id() > kMaxId) throw TokenizerError(fmt::format("added_tokens_decoder: {} is no token id", added.id()));
    std::erase_if(tokens, [&](const AddedToken& token) { return token.id == added.id(); });
    tokens.push_back({added.id(), added.content(), added.special(), added.lstrip(), added.rstrip()});
  }
}

}  // namespace

BpeSettings settings_from_sentencepiece(const std::string& tokenizer_model, const rpc::TokenizerSpec& spec) {
  Model model;
  if (!model.ParseFromString(tokenizer_model)) throw TokenizerError("tokenizer.model: it is no sentencepiece model");
  check_kind(model);
  BpeSettings settings;
  settings.merges_field = "tokenizer.model";
  BpeVocabulary& vocabulary = settings.vocabulary;
  for (const Model::Piece& piece : model.pieces()) {
    const auto id = static_cast<int32_t>(vocabulary.tokens.size());
    const bool control = piece.type() == Model::Piece::CONTROL || piece.type() == Model::Piece::UNKNOWN;
    if (control || piece.type() == Model::Piece::USER_DEFINED) settings.added.push_back({id, piece.piece(), control, false, false});
    if (piece.type() == Model::Piece::BYTE) vocabulary.byte_fallback = true;
    if (piece.type() == Model::Piece::UNKNOWN) vocabulary.unknown_id = id;
    vocabulary.tokens.push_back(piece.piece());
    vocabulary.scores.push_back(piece.score());
  }
  add_config_tokens(spec, settings.added);
  settings.spaces_to_blocks = true;
  settings.prepend_space = model.normalizer_spec().add_dummy_prefix();
  const auto existing = [&](int32_t id) { return id >= 0 && id < model.pieces_size() ? id : -1; };
  settings.bos_id = existing(model.trainer_spec().bos_id());
  settings.eos_id = existing(model.trainer_spec().eos_id());
  if (spec.add_bos_token() && settings.bos_id >= 0) settings.before.push_back(settings.bos_id);
  if (spec.add_eos_token() && settings.eos_id >= 0) settings.after.push_back(settings.eos_id);
  return settings;
}

}  // namespace accrete::coordinator
