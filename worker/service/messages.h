// Between the protocol's messages and the engine's types.
#pragma once

#include "net/proto/accrete.pb.h"
#include "worker/engine/request.h"

namespace accrete::worker {

Request to_request(const rpc::Submit& submit);
rpc::Token to_message(const TokenOut& token);
// A chunk of request `id` as the coordinator knows it.
void fill_chunk(const RequestOutput& output, uint64_t id, rpc::TokenChunk& chunk);

}  // namespace accrete::worker
