#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <unistd.h>

#include <array>
#include <cstring>

#include "worker/engine/settings.h"
#include "worker/service/leader_service.h"

namespace accrete::worker {
namespace {

// The coordinator that world rank 0 brought, told to the leaders of all replicas of the job.
std::string share_address(parallel::Communicator& world, const std::string& address) {
  std::array<char, 256> text{};
  std::strncpy(text.data(), address.c_str(), text.size() - 1);
  world.broadcast(std::as_writable_bytes(std::span(text)), 0);
  return text.data();
}

HostRanks ranks_on_host(parallel::Communicator& world) {
  std::array<char, 64> mine{};
  gethostname(mine.data(), mine.size() - 1);
  std::vector<char> all(mine.size() * world.size());
  world.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
  HostRanks host{0, 0};
  for (int rank = 0; rank < world.size(); ++rank) {
    if (std::strncmp(all.data() + rank * mine.size(), mine.data(), mine.size()) != 0) continue;
    ++host.ranks;
    host.mine += rank < world.rank() ? 1 : 0;
  }
  return host;
}

int lead(const WorkerOptions& options, const TensorSource& source, Rank& self, parallel::Communicator& replica, const std::string& address) {
  const rpc::ModelCard card = model_card(source, options.engine, usable_model_len(options.engine, self.infos()));
  for (const std::string& line : memory_plan(options.engine, source.config(), self.infos())) spdlog::info("replica.memory {}", line);
  LeaderService service({options, address, card, replica_shape(options.engine, self.infos())});
  Leader leader(leader_setup(options.engine, source.config(), self.infos(), service.sink()), self.executor(), replica);
  spdlog::info("replica.ready model={} ranks={} tp={} pp={} max_model_len={}{}", card.name(), replica.size(), options.engine.topology.tensor,
               options.engine.topology.pipeline, card.max_model_len(),
               card.dmc().synthetic_cr() > 0.0 ? fmt::format(" dmc=synthetic cr={}", card.dmc().synthetic_cr()) : "");
  service.start(leader);
  leader.run();
  return service.finish();
}

}  // namespace

int run_worker(parallel::Communicator& world, const WorkerOptions& given) {
  const std::string wrong = check_options(given.engine);
  if (!wrong.empty()) throw std::invalid_argument(wrong);
  WorkerOptions options = given;
  options.engine = resolved(given.engine);
  const parallel::Topology& topology = options.engine.topology;
  if (world.size() != topology.ranks()) {
    throw std::invalid_argument(fmt::format("{} ranks started, --tensor-parallel-size {} x --pipeline-parallel-size {} x --data-parallel-size {} needs {}",
                                            world.size(), topology.tensor, topology.pipeline, topology.data, topology.ranks()));
  }
  const parallel::Place place = parallel::place_of(topology, world.rank());
  const std::unique_ptr<parallel::Communicator> replica = world.split(place.replica, world.rank());
  const bool leads = replica->rank() == 0;
  install_stop_signals(leads);
  const std::unique_ptr<TensorSource> source =
      open_model(options.engine.model, {options.engine.load_format, options.engine.adapter, options.engine.seed});
  if (leads) spdlog::info("replica.loading model={} {}", served_name(options.engine), source->describe());
  Rank self(*source, options.engine, *replica, ranks_on_host(world));
  std::string address = options.coordinator;
  if (address.empty()) {
    if (world.rank() == 0 && options.start_coordinator) {
      address = options.start_coordinator(model_card(*source, options.engine, usable_model_len(options.engine, self.infos())));
    }
    address = share_address(world, address);
  }
  if (!leads) return follow(self.executor(), *replica), 0;
  return lead(options, *source, self, *replica, address);
}

}  // namespace accrete::worker
