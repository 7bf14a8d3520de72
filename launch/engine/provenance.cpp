#include "launch/engine/provenance.h"

#include <fmt/format.h>

namespace accrete::launch {

Provenance provenance_of(const rpc::ModelCard& card, const rpc::ReplicaShape& shape, int64_t replicas) {
  Provenance result;
  result.model = card.name();
  result.device = card.device();
  result.dtype = card.dtype();
  result.shape = fmt::format("TP {} x PP {}, {} replica{}", shape.tensor_parallel(), shape.pipeline_parallel(), replicas, replicas == 1 ? "" : "s");
  result.target_cr = card.dmc().enabled() ? card.dmc().target_cr() : 0.0;
  result.synthetic_cr = card.dmc().synthetic_cr();
  result.dummy_weights = card.dummy_weights();
  return result;
}

}  // namespace accrete::launch
