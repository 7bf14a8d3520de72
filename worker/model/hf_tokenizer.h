// The tokenizer files of a Hugging Face directory, gathered into the one message that the coordinator reads.
#pragma once

#include <string>

#include "net/proto/accrete.pb.h"

namespace accrete::worker {

// tokenizer.json when it is a byte-level BPE, else tokenizer.model; kind unset when the directory has neither. With it
// chat template (chat_template.jinja before tokenizer_config.json's), special tokens and added tokens.
// Throws ModelError for files that are too large or malformed, and for a tokenizer.json of another kind alone.
rpc::TokenizerSpec read_hf_tokenizer(const std::string& directory);

}  // namespace accrete::worker
