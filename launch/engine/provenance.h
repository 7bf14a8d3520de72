// Under which circumstances a figure was taken, from a model's card.
#pragma once

#include "launch/bench/record.h"
#include "net/proto/accrete.pb.h"

namespace accrete::launch {

Provenance provenance_of(const rpc::ModelCard& card, const rpc::ReplicaShape& shape, int64_t replicas);

}  // namespace accrete::launch
