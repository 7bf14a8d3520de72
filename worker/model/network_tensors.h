// The tensors of a Llama by their Hugging Face names and shapes.
#pragma once

#include <functional>
#include <string>

#include "worker/model/tensor_source.h"

namespace accrete::worker {

// Rows and columns as TensorSource::shape gives them.
using TensorVisitor = std::function<void(const std::string& name, int64_t rows, int64_t columns)>;

// Visits each tensor that the network needs once; lm_head.weight only when the embeddings are not tied.
void visit_tensors(const ModelConfig& config, const TensorVisitor& visit);

// Throws ModelError naming the first tensor that `source` lacks or holds in another shape than its config says.
void check_tensors(const TensorSource& source, const std::string& where);

}  // namespace accrete::worker
