#include "cache/audit.h"

#include <fmt/format.h>

#include <vector>

namespace accrete::cache {
namespace {

// Counts the head's pages in `owners`.
std::optional<std::string> audit_head(const KvCacheShape& shape, const TablesToAudit& tables, int64_t index, std::vector<int32_t>& owners) {
  const int32_t slots = tables.slots[index];
  if (slots < 0 || slots > shape.max_tokens) return fmt::format("head {}: {} slots", index, slots);
  if (!tables.segment.empty() && tables.segment[index] < 0) return fmt::format("head {}: segment {}", index, tables.segment[index]);
  const int64_t pages = (slots + shape.page_slots - 1) / shape.page_slots;
  for (int64_t i = 0; i < shape.max_pages(); ++i) {
    const int32_t page = tables.page_rows[index * shape.max_pages() + i];
    if (i >= pages && page != kNoPage) return fmt::format("head {}: entry {} beyond its {} pages is {}", index, i, pages, page);
    if (i < pages && (page < 0 || page >= shape.pages)) return fmt::format("head {}: entry {} is {}", index, i, page);
    if (i < pages) ++owners[page];
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> audit_tables(const KvCacheShape& shape, const TablesToAudit& tables) {
  std::vector<int32_t> owners(shape.pages, 0);
  for (int32_t page : tables.free_list) {
    if (page < 0 || page >= shape.pages) return fmt::format("the free list holds {}", page);
    ++owners[page];
  }
  for (int64_t index = 0; index < shape.table_heads(); ++index) {
    if (auto wrong = audit_head(shape, tables, index, owners)) return wrong;
  }
  for (int64_t page = 0; page < shape.pages; ++page) {
    if (owners[page] != 1) return fmt::format("page {} has {} owners", page, owners[page]);
  }
  return std::nullopt;
}

}  // namespace accrete::cache
