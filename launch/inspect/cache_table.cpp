#include "launch/inspect/cache_table.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/inspect/shard_plan.h"

namespace accrete::launch {
namespace {

int64_t pages_for(int64_t slots, int64_t page_slots) { return (slots + page_slots - 1) / page_slots; }

// Pages of the heads that one rank holds.
int64_t rank_pages(const CacheTable& table, const rpc::RankShape& rank, int64_t page_slots) {
  int64_t pages = 0;
  for (int64_t layer = rank.layer_begin(); layer < rank.layer_end(); ++layer) {
    for (int64_t head = rank.kv_head_begin(); head < rank.kv_head_end(); ++head) {
      pages += pages_for(table.slots[static_cast<size_t>(layer * table.kv_heads + head)], page_slots);
    }
  }
  return pages;
}

int64_t pages_free(const rpc::ReplicaReport& report, uint32_t rank) {
  for (const rpc::RankReport& entry : report.ranks()) {
    if (entry.rank() == rank) return static_cast<int64_t>(entry.pages_free());
  }
  return 0;
}

}  // namespace

CacheTable cache_table(const rpc::ModelCard& card, const rpc::ReplicaShape& shape, const rpc::ReplicaReport& report) {
  CacheTable table;
  table.layers = card.layers();
  table.kv_heads = card.kv_heads();
  table.tokens = static_cast<int64_t>(report.cached_tokens());
  table.slots.resize(static_cast<size_t>(table.layers * table.kv_heads));
  for (size_t i = 0; i < table.slots.size() && i < static_cast<size_t>(report.head_slots_size()); ++i) {
    table.slots[i] = std::llround(report.head_slots(static_cast<int>(i)));
  }
  table.bytes_reported = static_cast<int64_t>(report.kv_bytes_in_use());
  for (const rpc::RankShape& rank : shape.ranks()) {
    const auto page_bytes = static_cast<int64_t>(rank.page_bytes());
    const int64_t heads = static_cast<int64_t>(rank.layer_end() - rank.layer_begin()) * (rank.kv_head_end() - rank.kv_head_begin());
    const int64_t pages = rank_pages(table, rank, shape.page_slots());
    table.pages_by_tables += pages;
    table.bytes_by_tables += pages * page_bytes;
    table.pages_by_pools += static_cast<int64_t>(rank.pages_total()) - pages_free(report, rank.rank());
    table.bytes_at_cr_1 += heads * pages_for(table.tokens, shape.page_slots()) * page_bytes;
  }
  return table;
}

std::string to_text(const CacheTable& table) {
  std::string text = fmt::format("Slots of {} tokens by layer (rows) and KV head (columns)\n        ", table.tokens);
  for (int64_t head = 0; head < table.kv_heads; ++head) text += fmt::format("{:>7}", head);
  text += "    ratio\n";
  for (int64_t layer = 0; layer < table.layers; ++layer) {
    int64_t sum = 0;
    text += fmt::format("{:>6}  ", layer);
    for (int64_t head = 0; head < table.kv_heads; ++head) {
      const int64_t slots = table.slots[static_cast<size_t>(layer * table.kv_heads + head)];
      text += fmt::format("{:>7}", slots);
      sum += slots;
    }
    text += fmt::format("{:>9.2f}\n", sum > 0 ? static_cast<double>(table.tokens * table.kv_heads) / static_cast<double>(sum) : 1.0);
  }
  const int64_t slots = std::accumulate(table.slots.begin(), table.slots.end(), int64_t{0});
  const auto heads = static_cast<double>(table.slots.size());
  text += fmt::format("mean slots of a head {:.1f}, compression ratio {:.2f}\n", static_cast<double>(slots) / heads,
                      slots > 0 ? static_cast<double>(table.tokens) * heads / static_cast<double>(slots) : 1.0);
  text += fmt::format("pages {} by the tables, {} by the pools; bytes {} by the tables, {} by the caches ({}; {} at CR 1)\n", table.pages_by_tables,
                      table.pages_by_pools, table.bytes_by_tables, table.bytes_reported, human_bytes(table.bytes_reported),
                      human_bytes(table.bytes_at_cr_1));
  return text + (table.agrees() ? "accounting agrees\n" : "accounting DISAGREES\n");
}

nlohmann::json to_json(const CacheTable& table) {
  return {{"tokens", table.tokens}, {"layers", table.layers}, {"kv_heads", table.kv_heads}, {"slots", table.slots},
          {"pages_by_tables", table.pages_by_tables}, {"pages_by_pools", table.pages_by_pools}, {"bytes_by_tables", table.bytes_by_tables},
          {"bytes_reported", table.bytes_reported}, {"bytes_at_cr_1", table.bytes_at_cr_1}, {"agrees", table.agrees()}};
}

}  // namespace accrete::launch
