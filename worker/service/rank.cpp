#include "worker/service/rank.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "worker/engine/settings.h"
#include "worker/engine/start_errors.h"

namespace accrete::worker {
namespace {

parallel::Topology replica_topology(const EngineOptions& options) { return {options.topology.tensor, options.topology.pipeline, 1}; }

std::vector<RankInfo> exchange(const RankInfo& mine, parallel::Communicator& replica) {
  std::vector<RankInfo> all(replica.size());
  replica.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return all;
}

int64_t tokens_at_cr1(const RankInfo& info, int64_t page_slots) { return info.pages / info.heads() * page_slots; }

}  // namespace

Rank::Rank(const TensorSource& source, const EngineOptions& options, parallel::Communicator& replica, const HostRanks& host)
    : replica_(replica) {
  const parallel::Topology topology = replica_topology(options);
  const parallel::Place place = parallel::place_of(topology, replica.rank());
  tensor_ = replica.split(place.stage, place.shard);
  run_shared(replica, [&] { executor_ = make_executor(source, options, RankGroups{replica, *tensor_, topology, host.ranks, host.mine}); });
  infos_ = exchange(executor_->info(), replica);
}

std::string served_name(const EngineOptions& options) {
  if (!options.served_model_name.empty()) return options.served_model_name;
  const std::filesystem::path path(options.model);
  const std::string name = path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
  return name.empty() ? path.parent_path().filename().string() : name;
}

int64_t usable_model_len(const EngineOptions& options, const std::vector<RankInfo>& infos) {
  int64_t length = infos.front().max_model_len;
  if (options.max_model_len > 0) return length;  // asked for: longer sequences may still fit by compression
  for (const RankInfo& info : infos) length = std::min(length, std::max<int64_t>(1, tokens_at_cr1(info, options.block_size)));
  return length;
}

rpc::ModelCard model_card(const TensorSource& source, const EngineOptions& options, int64_t max_len) {
  const ModelConfig& config = source.config();
  const DmcParams dmc = dmc_params(options, config);
  rpc::ModelCard card;
  card.set_name(served_name(options));
  card.set_hash(source.hash());
  card.set_architecture(config.architecture);
  card.set_max_model_len(static_cast<uint32_t>(max_len));
  card.set_vocab_size(static_cast<uint32_t>(config.vocab));
  card.set_layers(static_cast<uint32_t>(config.layers));
  card.set_query_heads(static_cast<uint32_t>(config.query_heads));
  card.set_kv_heads(static_cast<uint32_t>(config.kv_heads));
  card.set_head_size(static_cast<uint32_t>(config.head_size));
  card.set_hidden_size(static_cast<uint32_t>(config.hidden));
  card.set_dtype(options.quantization == "fp8" ? name_of(DType::fp8) : name_of(weight_dtype(options)));
  card.set_device(on_gpu(options) ? "cuda" : "cpu");
  card.mutable_dmc()->set_enabled(dmc.mode == DmcMode::learned);
  card.mutable_dmc()->set_target_cr(config.dmc ? config.dmc->target_cr : 0.0);
  card.mutable_dmc()->set_window(static_cast<uint32_t>(dmc.window));
  card.mutable_dmc()->set_synthetic_cr(dmc.mode == DmcMode::synthetic ? dmc.synthetic_cr : 0.0);
  for (int32_t id : config.eos_token_ids) card.add_eos_token_ids(id);
  *card.mutable_tokenizer() = source.tokenizer();
  *card.mutable_defaults() = source.generation_defaults();
  card.set_dummy_weights(options.load_format == "dummy");
  card.set_kv_bytes_per_token(static_cast<uint64_t>(2 * config.layers * config.kv_heads * config.head_size) * size_of(kv_dtype(options)));
  return card;
}

rpc::ReplicaShape replica_shape(const EngineOptions& options, const std::vector<RankInfo>& infos) {
  rpc::ReplicaShape shape;
  shape.set_tensor_parallel(static_cast<uint32_t>(options.topology.tensor));
  shape.set_pipeline_parallel(static_cast<uint32_t>(options.topology.pipeline));
  shape.set_page_slots(static_cast<uint32_t>(options.block_size));
  shape.set_max_num_seqs(static_cast<uint32_t>(options.max_num_seqs));
  for (size_t i = 0; i < infos.size(); ++i) {
    const parallel::Place place = parallel::place_of(replica_topology(options), static_cast<int>(i));
    rpc::RankShape& rank = *shape.add_ranks();
    rank.set_rank(static_cast<uint32_t>(i));
    rank.set_stage(static_cast<uint32_t>(place.stage));
    rank.set_shard(static_cast<uint32_t>(place.shard));
    rank.set_host(infos[i].host);
    rank.set_device(infos[i].device);
    rank.set_pages_total(static_cast<uint64_t>(infos[i].pages));
    rank.set_page_bytes(static_cast<uint64_t>(infos[i].page_bytes));
    rank.set_weight_bytes(static_cast<uint64_t>(infos[i].weight_bytes));
    rank.set_layer_begin(static_cast<uint32_t>(infos[i].layer_begin));
    rank.set_layer_end(static_cast<uint32_t>(infos[i].layer_end));
    rank.set_kv_head_begin(static_cast<uint32_t>(infos[i].kv_head_begin));
    rank.set_kv_head_end(static_cast<uint32_t>(infos[i].kv_head_end));
  }
  return shape;
}

rpc::ReplicaReport replica_report(const LeaderStatus& status) {
  rpc::ReplicaReport report;
  report.set_running(static_cast<uint32_t>(status.running));
  report.set_waiting(static_cast<uint32_t>(status.waiting));
  for (size_t i = 0; i < status.pages_free.size(); ++i) {
    rpc::RankReport& rank = *report.add_ranks();
    rank.set_rank(static_cast<uint32_t>(i));
    rank.set_pages_free(static_cast<uint64_t>(status.pages_free[i]));
  }
  report.set_cached_tokens(static_cast<uint64_t>(status.cached_tokens));
  report.set_mean_slots_ratio(status.compression);
  for (double slots : status.head_slots) report.add_head_slots(slots);
  report.set_kv_bytes_in_use(static_cast<uint64_t>(status.kv_bytes_in_use));
  report.set_kv_bytes_saved(static_cast<uint64_t>(status.kv_bytes_saved));
  rpc::Counters& counters = *report.mutable_counters();
  counters.set_prompt_tokens(status.counters.prompt_tokens);
  counters.set_generation_tokens(status.counters.generation_tokens);
  counters.set_preemptions(status.counters.preemptions);
  counters.set_iterations(status.counters.iterations);
  counters.set_swapped_out(status.counters.swapped_out);
  counters.set_swapped_in(status.counters.swapped_in);
  counters.set_device_seconds(status.counters.device_seconds);
  for (uint64_t count : status.counters.iteration_tokens) counters.add_iteration_token_buckets(count);
  return report;
}

std::vector<std::string> memory_plan(const EngineOptions& options, const ModelConfig& config, const std::vector<RankInfo>& infos) {
  constexpr double kMiB = 1 << 20;
  std::vector<std::string> lines;
  int64_t tokens = INT64_MAX;
  for (size_t rank = 0; rank < infos.size(); ++rank) {
    const RankInfo& info = infos[rank];
    lines.push_back(fmt::format("rank {}: weights {:.0f} MiB, cache {:.0f} MiB in {} pages of {} bytes, tables and compression state {:.0f} MiB",
                                rank, static_cast<double>(info.weight_bytes) / kMiB,
                                static_cast<double>(info.pages * info.page_bytes) / kMiB, info.pages, info.page_bytes,
                                static_cast<double>(info.cache_state_bytes) / kMiB));
    tokens = std::min(tokens, tokens_at_cr1(info, options.block_size));
  }
  const DmcParams dmc = dmc_params(options, config);
  double cr = 1.0;
  if (dmc.mode == DmcMode::learned && config.dmc) cr = std::max(1.0, config.dmc->target_cr);
  if (dmc.mode == DmcMode::synthetic) cr = dmc.synthetic_cr;
  const int64_t length = usable_model_len(options, infos);
  lines.push_back(fmt::format("KV cache size: {} tokens at CR 1, about {:.0f} at this model's CR of {:.3g}{}", tokens,
                              static_cast<double>(tokens) * cr, cr, dmc.mode == DmcMode::synthetic ? " (synthetic decisions)" : ""));
  lines.push_back(fmt::format("maximum concurrency for {} tokens per request: {:.2f}", length,
                              static_cast<double>(tokens) * cr / static_cast<double>(length)));
  return lines;
}

Leader::Setup leader_setup(const EngineOptions& options, const ModelConfig& config, const std::vector<RankInfo>& infos, OutputSink sink) {
  Leader::Setup setup;
  setup.model = {config.layers, config.kv_heads, config.vocab, usable_model_len(options, infos), config.eos_token_ids};
  setup.options = options;
  setup.ranks = infos;
  setup.sink = std::move(sink);
  return setup;
}

}  // namespace accrete::worker
