#include "tests/worker/llama/llama_rig.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <thread>

#include "parallel/host_group.h"

namespace accrete::worker {

void RigStep::add(int32_t sequence, int32_t begin, std::span<const int32_t> tokens, Want want) {
  row.push_back(sequence);
  key.push_back(1000 + sequence);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (want == Want::all || (want == Want::last && i + 1 == tokens.size()))
      logit_tokens.push_back(static_cast<int32_t>(ids.size()));
    position.push_back(begin + static_cast<int32_t>(i));
    ids.push_back(tokens[i]);
  }
  token_begin.push_back(static_cast<int32_t>(ids.size()));
}

StageInput RigStep::input() const {
  const auto view = [](const auto& values) {
    using T = std::remove_cvref_t<decltype(values[0])>;
    return View<const T, 1>(values.data(), {static_cast<int64_t>(values.size())});
  };
  return {{view(row), view(token_begin), view(position), view(key)}, view(ids), view(logit_tokens)};
}

struct LlamaRig::Rank {
  // Collective.
  Rank(const TensorSource& source, const RigOptions& options, parallel::Communicator& world_group);
  void run(const RigStep& step, int tensor, LogitRows* logits);

  parallel::Communicator& world;
  parallel::ShardSpec shard;
  std::unique_ptr<parallel::Communicator> tensor_group;
  ThreadPool pool{1};
  CpuStageDevice device{pool};
  std::unique_ptr<parallel::DeviceGroup> group;
  std::unique_ptr<LlamaStage> stage;
  std::unique_ptr<cache::KvCache> cache;
};

LlamaRig::Rank::Rank(const TensorSource& source, const RigOptions& options, parallel::Communicator& world_group)
    : world(world_group) {
  const ModelConfig& config = source.config();
  const parallel::Place place = parallel::place_of(options.topology, world.rank());
  const parallel::ShardResult dealt = parallel::shard(options.topology, place, network_shape(config));
  CHECK(dealt.error.empty(), dealt.error);
  shard = dealt.spec;
  tensor_group = world.split(place.stage, place.shard);
  LlamaStageOptions stage_options;
  stage_options.weights.dtype = options.weight_dtype;
  stage_options.max_step_tokens = options.chunk * options.sequences;
  stage_options.max_logit_rows = stage_options.max_step_tokens;
  stage_options.dmc = options.dmc;
  stage_options.max_sequences = options.sequences;
  group = parallel::make_host_group(*tensor_group);
  stage = std::make_unique<LlamaStage>(source, shard, stage_options, device, *group);
  cache::KvCacheShape shape;
  shape.layers = shard.layers.size();
  shape.kv_heads = shard.kv_heads.size();
  shape.head_size = config.head_size;
  shape.sequences = options.sequences;
  shape.max_tokens = options.max_tokens;
  shape.pages = shape.heads() * options.sequences * ((options.max_tokens + shape.page_slots - 1) / shape.page_slots);
  shape.window = options.dmc.window;
  shape.dmc = options.dmc.mode != DmcMode::off;
  cache = std::make_unique<cache::KvCache>(shape);
}

void LlamaRig::Rank::run(const RigStep& step, int tensor, LogitRows* logits) {
  const StageInput input = step.input();
  const View<float, 2> hidden = stage->hidden(input.batch.tokens()).as<float>();
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(hidden.data, static_cast<size_t>(hidden.size())));
  if (!shard.first_stage) world.recv_into(bytes, world.rank() - tensor, 0);
  stage->forward(input, cache->ref());
  if (!shard.last_stage) {
    world.send(bytes, world.rank() + tensor, 0);
    return;
  }
  const View<float, 2> rows = stage->logits();
  EXPECT_EQ(rows.shape[0], tensor_group->rank() == 0 ? input.logit_tokens.shape[0] : 0);
  for (int64_t i = 0; i < rows.shape[0]; ++i) logits->emplace_back(&rows(i, 0), &rows(i, 0) + rows.shape[1]);
}

LlamaRig::LlamaRig(const TensorSource& source, const RigOptions& options)
    : options_(options), vocab_(source.config().vocab), own_worlds_(parallel::make_threads(options.topology.ranks())) {
  ranks_.resize(own_worlds_.size());
  std::vector<std::exception_ptr> errors(ranks_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        ranks_[i] = std::make_unique<Rank>(source, options, *own_worlds_[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

LlamaRig::LlamaRig(const TensorSource& source, const RigOptions& options, parallel::Communicator& world)
    : options_(options), vocab_(source.config().vocab), job_(&world) {
  ranks_.push_back(std::make_unique<Rank>(source, options, world));
}

LlamaRig::~LlamaRig() = default;

LogitRows LlamaRig::step(const RigStep& step) {
  LogitRows logits;
  std::vector<std::thread> threads;
  for (auto& rank : ranks_)
    threads.emplace_back([&, mine = rank.get()] { mine->run(step, options_.topology.tensor, &logits); });
  for (std::thread& thread : threads) thread.join();
  for (auto& rank : ranks_) EXPECT_FALSE(rank->cache->take_exhausted());
  if (job_) share(logits, step.logit_tokens.size());
  return logits;
}

// From the last stage's first shard to all.
void LlamaRig::share(LogitRows& logits, size_t rows) {
  const int root = (options_.topology.pipeline - 1) * options_.topology.tensor;
  logits.resize(rows, std::vector<float>(vocab_));
  for (auto& row : logits) job_->broadcast(std::as_writable_bytes(std::span(row)), root);
}

std::vector<int32_t> LlamaRig::slot_counts(int32_t sequence) const {
  std::vector<int32_t> all;
  // Ranks are ordered by stage, then shard: layer by layer, heads of the shards side by side.
  for (size_t first = 0; first < ranks_.size(); first += options_.topology.tensor) {
    for (int64_t layer = 0; layer < ranks_[first]->shard.layers.size(); ++layer) {
      for (int shard = 0; shard < options_.topology.tensor; ++shard) {
        const std::vector<int32_t> counts = ranks_[first + shard]->cache->slot_counts(sequence);
        const int64_t heads = ranks_[first + shard]->shard.kv_heads.size();
        all.insert(all.end(), counts.begin() + layer * heads, counts.begin() + (layer + 1) * heads);
      }
    }
  }
  return all;
}

LogitRows LlamaRig::all_logits(std::span<const int32_t> ids) {
  LogitRows rows;
  for (size_t begin = 0; begin < ids.size(); begin += options_.chunk) {
    const auto tokens = ids.subspan(begin, std::min<size_t>(options_.chunk, ids.size() - begin));
    RigStep next;
    next.add(0, static_cast<int32_t>(begin), tokens, RigStep::Want::all);
    for (auto& row : step(next)) rows.push_back(std::move(row));
  }
  return rows;
}

LlamaRig::Greedy LlamaRig::greedy(const std::vector<std::vector<int32_t>>& prompts, int64_t count) {
  const size_t sequences = prompts.size();
  Greedy result{std::vector<std::vector<int32_t>>(sequences), std::vector<LogitRows>(sequences)};
  std::vector<size_t> fed(sequences, 0);
  const auto busy = [&](size_t i) { return static_cast<int64_t>(result.tokens[i].size()) < count; };
  for (size_t round = 0;; ++round) {
    RigStep next;
    std::vector<size_t> sampling;
    for (size_t i = 0; i < std::min(sequences, round + 1); ++i) {
      if (!busy(i)) continue;
      std::vector<int32_t> tokens = prompts[i];
      tokens.insert(tokens.end(), result.tokens[i].begin(), result.tokens[i].end());
      const size_t size = std::min<size_t>(options_.chunk, tokens.size() - fed[i]);
      const bool last = fed[i] + size == tokens.size();
      next.add(static_cast<int32_t>(i), static_cast<int32_t>(fed[i]), std::span(tokens).subspan(fed[i], size),
               last ? RigStep::Want::last : RigStep::Want::none);
      fed[i] += size;
      if (last) sampling.push_back(i);
    }
    if (next.ids.empty()) return result;
    const LogitRows logits = step(next);
    CHECK(logits.size() == sampling.size(), logits.size(), sampling.size());
    for (size_t i = 0; i < sampling.size(); ++i) {
      result.tokens[sampling[i]].push_back(best_of(logits[i]));
      result.logits[sampling[i]].push_back(logits[i]);
    }
  }
}

int32_t best_of(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double largest_difference(const LogitRows& a, const LogitRows& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t row = 0; row < std::min(a.size(), b.size()); ++row) {
    EXPECT_EQ(a[row].size(), b[row].size());
    for (size_t i = 0; i < a[row].size(); ++i) {
      const double difference = std::abs(static_cast<double>(a[row][i]) - b[row][i]);
      largest = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(largest, difference);
    }
  }
  return largest;
}

double scale_of(const LogitRows& rows) {
  double sum = 0;
  size_t count = 0;
  for (const auto& row : rows) {
    for (float value : row) sum += static_cast<double>(value) * value;
    count += row.size();
  }
  return std::sqrt(sum / static_cast<double>(std::max<size_t>(1, count)));
}

double reordering_bound(const ModelConfig& config, double scale, double slack) {
  const int64_t terms = std::max({config.mlp, config.hidden, config.query_heads * config.head_size});
  constexpr double kEps = 1.0 / (1 << 24);
  return slack * kEps * std::sqrt(static_cast<double>(terms)) * 2 * static_cast<double>(config.layers) * scale;
}

}  // namespace accrete::worker
