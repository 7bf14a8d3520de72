#include "worker/engine/start_errors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

namespace accrete::worker {
namespace {

using Text = std::array<char, 1024>;  // ends with 0

// Ranks with the same error are named together, in the order of the first.
std::string joined(const std::vector<Text>& texts) {
  std::vector<std::pair<std::string, std::vector<size_t>>> errors;
  for (size_t rank = 0; rank < texts.size(); ++rank) {
    const std::string why = texts[rank].data();
    if (why.empty()) continue;
    const auto known = std::find_if(errors.begin(), errors.end(), [&](const auto& error) { return error.first == why; });
    if (known == errors.end()) errors.push_back({why, {rank}});
    else known->second.push_back(rank);
  }
  std::string all;
  for (const auto& [why, ranks] : errors) {
    all += fmt::format("{}{} {}: {}", all.empty() ? "" : "; ", ranks.size() > 1 ? "ranks" : "rank", fmt::join(ranks, ", "), why);
  }
  return all;
}

}  // namespace

void share_error(parallel::Communicator& ranks, const std::string& why) {
  Text mine{};
  std::copy_n(why.begin(), std::min(why.size(), mine.size() - 1), mine.begin());
  std::vector<Text> all(ranks.size());
  ranks.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
  if (const std::string errors = joined(all); !errors.empty()) throw StartError(errors);
}

void run_shared(parallel::Communicator& ranks, const std::function<void()>& work) {
  std::string why;
  try {
    work();
  } catch (const StartError&) {
    throw;
  } catch (const std::exception& error) {
    why = *error.what() ? error.what() : "an error without a text";
  }
  share_error(ranks, why);
}

}  // namespace accrete::worker
