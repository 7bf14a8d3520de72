// The audit of a cache's tables, wherever they live: each page is owned once or free, and the counts agree. For tests and asserts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "cache/kv_cache.h"

namespace accrete::cache {

struct TablesToAudit {
  std::span<const int32_t> slots;      // [L, B, Hkv]
  std::span<const int32_t> segment;    // [L, B, Hkv]; empty without DMC state
  std::span<const int32_t> page_rows;  // [L, B, Hkv, max_pages]
  std::span<const int32_t> free_list;  // the free pages
};

// What is wrong, or nothing.
std::optional<std::string> audit_tables(const KvCacheShape& shape, const TablesToAudit& tables);

}  // namespace accrete::cache
