#include "launch/bench/server_facts.h"

#include <fmt/format.h>

#include <boost/system/system_error.hpp>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace accrete::launch {
namespace {

nlohmann::json ask(const HttpServer& server, const std::string& target, const std::string& body) {
  HttpAnswer answer;
  try {
    answer = fetch(server, target, body);
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(fmt::format("no server at {}:{} ({}); see --host and --port", server.host, server.port, error.code().message()));
  }
  if (answer.status != 200) throw std::runtime_error(fmt::format("{} answered {}: {}", target, answer.status, answer.body.substr(0, 200)));
  nlohmann::json json = nlohmann::json::parse(answer.body, nullptr, false);
  if (!json.is_object()) throw std::runtime_error(fmt::format("{} did not answer a JSON object", target));
  return json;
}

nlohmann::json find_model(const nlohmann::json& cluster, const std::string& name) {
  for (const nlohmann::json& model : cluster.value("models", nlohmann::json::array())) {
    if (name.empty() || model.value("name", "") == name) return model;
  }
  throw std::runtime_error(name.empty() ? "the server has no model yet: no replica has joined" : fmt::format("--model {}: the server does not serve it", name));
}

}  // namespace

ServerFacts ask_server(const HttpServer& server, const std::string& model) {
  const nlohmann::json cluster = ask(server, "/v1/cluster", "");
  const nlohmann::json card = find_model(cluster, model);
  ServerFacts facts;
  facts.vocab = card.value("vocab_size", int64_t{0});
  facts.max_model_len = card.value("max_model_len", int64_t{0});
  Provenance& p = facts.provenance;
  p.model = card.value("name", "");
  p.device = card.value("device", "");
  p.dtype = card.value("dtype", "");
  p.dummy_weights = card.value("dummy_weights", false);
  const nlohmann::json dmc = card.value("dmc", nlohmann::json::object());
  p.synthetic_cr = dmc.value("synthetic_cr", 0.0);
  if (dmc.value("enabled", false)) p.target_cr = dmc.value("target_cr", 0.0);
  const nlohmann::json replicas = cluster.value("replicas", nlohmann::json::array());
  const nlohmann::json shape = replicas.empty() ? nlohmann::json::object() : replicas.front().value("shape", nlohmann::json::object());
  p.shape = fmt::format("TP {} x PP {}, {} replica{}", shape.value("tensor_parallel", 1), shape.value("pipeline_parallel", 1), replicas.size(),
                        replicas.size() == 1 ? "" : "s");
  return facts;
}

std::vector<int32_t> tokenize_remotely(const HttpServer& server, const std::string& model, const std::string& text) {
  const nlohmann::json body = {{"model", model}, {"prompt", text}};
  const nlohmann::json answer = ask(server, "/tokenize", body.dump());
  if (!answer.contains("tokens") || !answer["tokens"].is_array()) throw std::runtime_error("/tokenize answered no tokens");
  return answer["tokens"].get<std::vector<int32_t>>();
}

}  // namespace accrete::launch
