// The caches of one open sequence as a replica reports them, and whether its two ways of counting pages agree.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "net/proto/accrete.pb.h"

namespace accrete::launch {

struct CacheTable {
  int64_t layers = 0, kv_heads = 0;
  int64_t tokens = 0;               // of the sequence that are in the caches
  std::vector<int64_t> slots;       // [L * Hkv]
  int64_t pages_by_tables = 0;      // sum over heads of ceil(slots / S): what the arena's tables reach
  int64_t pages_by_pools = 0;       // sum over ranks of pages taken from the pool
  int64_t bytes_by_tables = 0;      // the same in bytes, each rank with its own page size
  int64_t bytes_reported = 0;       // as the caches count them
  int64_t bytes_at_cr_1 = 0;        // pages that the same tokens would hold without compression
  bool agrees() const { return pages_by_tables == pages_by_pools && bytes_by_tables == bytes_reported; }
};

// From the report of a replica with exactly one open sequence.
CacheTable cache_table(const rpc::ModelCard& card, const rpc::ReplicaShape& shape, const rpc::ReplicaReport& report);

std::string to_text(const CacheTable& table);
nlohmann::json to_json(const CacheTable& table);

}  // namespace accrete::launch
