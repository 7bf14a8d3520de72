// What a GGUF file's metadata say, in the forms that the rest of the program knows.
#pragma once

#include <string>
#include <string_view>

#include "net/proto/accrete.pb.h"
#include "worker/model/gguf_file.h"
#include "worker/model/model_config.h"

namespace accrete::worker {

// Of the llama architecture (Llama, and Mistral without a sliding window). Tied embeddings when the file has no
// output.weight. Throws ModelError naming the key. rope_factors are left to the caller, who can read tensors;
// validate() has been called.
ModelConfig parse_gguf_config(const GgufFile& file);

// tokenizer.ggml.* and tokenizer.chat_template; kind unset when the file has no tokenizer.
rpc::TokenizerSpec parse_gguf_tokenizer(const GgufFile& file);

}  // namespace accrete::worker
