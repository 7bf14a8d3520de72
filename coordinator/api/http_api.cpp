#include "coordinator/api/http_api.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <spdlog/spdlog.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "coordinator/api/answer_stream.h"

namespace accrete::coordinator {

namespace asio = boost::asio;
using nlohmann::json;
using boost::beast::http::verb;
using namespace asio::experimental::awaitable_operators;

namespace {

struct UnknownModel : std::runtime_error {
  using std::runtime_error::runtime_error;
};

net::HttpResponse text_response(unsigned status, std::string body, std::string type) {
  net::HttpResponse response;
  response.status = status;
  response.content_type = std::move(type);
  response.body = std::move(body);
  return response;
}

net::HttpResponse json_response(const json& value) { return text_response(200, value.dump(-1, ' ', false, json::error_handler_t::replace), "application/json"); }

bool open_to_all(const std::string& path) { return path == "/health" || path == "/metrics" || path == "/"; }

constexpr const char* kGetPaths[] = {"/", "/health", "/health_generate", "/metrics", "/version", "/v1/models", "/v1/cluster", "/tokenizer_info"};
constexpr const char* kPostPaths[] = {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"};

bool among(const std::string& path, std::span<const char* const> paths) {
  return std::any_of(paths.begin(), paths.end(), [&](const char* known) { return path == known; });
}

bool is_replica_path(const std::string& path) {
  return path.starts_with("/v1/cluster/replicas/") && (path.ends_with("/drain") || path.ends_with("/resume"));
}

}  // namespace

bool equal_secret(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) difference |= static_cast<uint8_t>(given[i]) ^ static_cast<uint8_t>(secret.empty() ? 0 : secret[i % secret.size()]);
  return difference == 0;
}

HttpApi::HttpApi(asio::io_context& io, Cluster& cluster, ServingMetrics& metrics, Options options)
    : io_(io), cluster_(cluster), metrics_(metrics), options_(std::move(options)) {}

bool HttpApi::authorized(const net::HttpExchange& exchange, const std::string& path) const {
  if (options_.api_key.empty() || open_to_all(path)) return true;
  const auto header = exchange.request()[boost::beast::http::field::authorization];
  const std::string_view value(header.data(), header.size());
  return value.starts_with("Bearer ") && equal_secret(value.substr(7), options_.api_key);
}

std::shared_ptr<const ModelEntry> HttpApi::model_of(const std::string& name) const {
  auto model = cluster_.model(name);
  if (model) return model;
  if (cluster_.models().empty()) return nullptr;
  throw UnknownModel(name.empty() ? "model: name one of /v1/models" : fmt::format("The model `{}` does not exist.", name));
}

asio::awaitable<void> HttpApi::handle(net::HttpExchange& exchange) {
  const auto target = exchange.request().target();
  std::string path(target.data(), target.size());
  path.resize(std::min(path.find('?'), path.size()));
  net::HttpResponse answer;
  try {
    if (!authorized(exchange, path)) {
      answer = error_response(401, "a valid API key is needed: Authorization: Bearer KEY");
    } else {
      co_await route(exchange, path);
      if (exchange.answered()) co_return;
      answer = error_response(500, "no answer was made");
    }
  } catch (const FieldError& error) {
    answer = error_response(400, error.what(), error.param);
  } catch (const UnknownModel& error) {
    answer = error_response(404, error.what(), "model");
  } catch (const boost::system::system_error&) {
    throw;  // the connection itself
  } catch (const std::exception& error) {
    spdlog::error("http.failed path={} why=\"{}\"", path, error.what());
    answer = error_response(500, error.what());
  }
  if (!exchange.answered()) co_await exchange.respond(std::move(answer));
}

asio::awaitable<void> HttpApi::route(net::HttpExchange& exchange, const std::string& path) {
  const verb method = exchange.request().method();
  const bool gets = among(path, kGetPaths), posts = among(path, kPostPaths) || is_replica_path(path);
  if (gets && (method == verb::get || method == verb::head)) co_return co_await get(exchange, path);
  if (posts && method == verb::post) co_return co_await post(exchange, path);
  if (gets || posts) {
    net::HttpResponse response = error_response(405, fmt::format("{} takes {}", path, gets ? "GET" : "POST"));
    response.headers.emplace_back("Allow", gets ? "GET, HEAD" : "POST");
    co_await exchange.respond(std::move(response));
    co_return;
  }
  co_await exchange.respond(error_response(404, fmt::format("there is nothing at {}", path)));
}

asio::awaitable<void> HttpApi::get(net::HttpExchange& exchange, const std::string& path) {
  if (path == "/health") co_return co_await health(exchange, false);
  if (path == "/health_generate") co_return co_await health(exchange, true);
  net::HttpResponse response;
  if (path == "/") response = text_response(200, kStatusPage, "text/html; charset=utf-8");
  else if (path == "/metrics") response = text_response(200, render_metrics(metrics_, cluster_), "text/plain; version=0.0.4; charset=utf-8");
  else if (path == "/version") response = json_response({{"version", ACCRETE_VERSION}});
  else if (path == "/v1/models") response = models_page();
  else if (path == "/tokenizer_info") response = tokenizer_info();
  else response = cluster_page();
  co_await exchange.respond(std::move(response));
}

asio::awaitable<void> HttpApi::post(net::HttpExchange& exchange, const std::string& path) {
  const std::string& body = exchange.request().body();
  if (path == "/v1/completions") co_return co_await generate(exchange, parse_completion_request(body));
  if (path == "/v1/chat/completions") co_return co_await generate(exchange, parse_chat_request(body));
  net::HttpResponse response;
  if (path == "/tokenize") response = tokenize(body);
  else if (path == "/detokenize") response = detokenize(body);
  else response = set_draining(path);
  co_await exchange.respond(std::move(response));
}

asio::awaitable<void> HttpApi::generate(net::HttpExchange& exchange, ApiRequest request) {
  const auto model = model_of(request.model);
  if (!model || draining_) {
    co_await exchange.respond(error_response(503, draining_ ? "the server is shutting down" : "no replica has joined yet"));
    co_return;
  }
  std::vector<PreparedChoice> choices = prepare(request, model);
  AnswerHead head{request.chat, fmt::format("{}-{:016x}", request.chat ? "chatcmpl" : "cmpl", (static_cast<uint64_t>(model->created) << 24) + next_answer_++),
                  std::time(nullptr), model->card.name()};
  const bool stream = request.stream;
  AnswerStream answer(io_, {head, std::move(request), model}, std::move(choices), cluster_, metrics_);
  if (auto refusal = answer.start()) {
    co_await exchange.respond(refusal_response(*refusal));
    co_return;
  }
  if (stream) {
    co_await (answer.stream_to(exchange) || exchange.until_gone());
    co_return;
  }
  auto done = co_await (answer.collect() || exchange.until_gone());
  if (done.index() == 0) co_await exchange.respond(std::get<0>(std::move(done)));
  else throw boost::system::system_error(asio::error::eof);  // gone
}

asio::awaitable<void> HttpApi::health(net::HttpExchange& exchange, bool really) {
  if (draining_ || !cluster_.can_serve()) {
    co_await exchange.respond(error_response(503, draining_ ? "the server is shutting down" : "no replica is up and taking requests"));
    co_return;
  }
  if (!really) {
    co_await exchange.respond(text_response(200, "", "text/plain"));
    co_return;
  }
  ApiRequest request;
  request.max_tokens = 1;
  request.prompts = {std::vector<int32_t>{1}};
  request.sampling.set_top_p(1.0f);
  request.sampling.set_repetition_penalty(1.0f);
  request.has_temperature = true;  // greedy
  for (const auto& entry : cluster_.models()) request.model = entry->card.name();
  co_await generate(exchange, std::move(request));
}

net::HttpResponse HttpApi::models_page() const {
  json list = json::array();
  for (const auto& entry : cluster_.models()) {
    list.push_back({{"id", entry->card.name()}, {"object", "model"}, {"created", entry->created}, {"owned_by", "accrete"}, {"root", entry->card.name()},
                    {"parent", nullptr}, {"max_model_len", entry->card.max_model_len()}});
  }
  return json_response({{"object", "list"}, {"data", list}});
}

net::HttpResponse HttpApi::cluster_page() const {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(cluster_.state(), &text, options);
  if (!status.ok()) return error_response(500, "the cluster's state cannot be printed");
  return text_response(200, std::move(text), "application/json");
}

net::HttpResponse HttpApi::set_draining(const std::string& path) {
  const bool drain = path.ends_with("/drain");
  const std::string rest = path.substr(std::string_view("/v1/cluster/replicas/").size());
  const std::string id = rest.substr(0, rest.rfind('/'));
  if (!cluster_.set_draining(id, drain)) return error_response(404, fmt::format("there is no replica '{}'", id), "id");
  return json_response({{"id", id}, {"state", drain ? "draining" : "up"}});
}

net::HttpResponse HttpApi::tokenize(std::string_view body) const {
  const json object = parse_object(body);
  const Fields fields(object);
  const auto model = model_of(fields.string("model").value_or(""));
  if (!model) return error_response(503, "no replica has joined yet");
  std::vector<int32_t> ids;
  if (fields.has("messages")) {
    ids = encode_chat(*model, parse_messages(fields), fields.boolean("add_generation_prompt").value_or(true));
  } else {
    const auto prompt = fields.string("prompt");
    if (!prompt) throw FieldError("prompt", "prompt is missing");
    if (!model->tokenizer) throw FieldError("model", model->no_text);
    ids = model->tokenizer->encode(*prompt, {.add_special_tokens = fields.boolean("add_special_tokens").value_or(true), .parse_special = true});
  }
  return json_response({{"count", ids.size()}, {"max_model_len", model->card.max_model_len()}, {"tokens", ids}});
}

// vLLM's route of the same name: what of tokenizer_config.json a client needs that tokenizes here (/tokenize) and templates itself.
net::HttpResponse HttpApi::tokenizer_info() const {
  const auto model = model_of("");
  if (!model) return error_response(503, "no replica has joined yet");
  if (!model->tokenizer) throw FieldError("model", model->no_text);
  const rpc::TokenizerSpec& spec = model->words;
  const auto text = [](const std::string& value) { return value.empty() ? json(nullptr) : json(value); };
  return json_response({{"tokenizer_class", "accrete"}, {"bos_token", text(spec.bos_token())}, {"eos_token", text(spec.eos_token())},
                        {"add_bos_token", spec.add_bos_token()}, {"chat_template", text(spec.chat_template())},
                        {"model_max_length", model->card.max_model_len()}});
}

net::HttpResponse HttpApi::detokenize(std::string_view body) const {
  const json object = parse_object(body);
  const Fields fields(object);
  const auto model = model_of(fields.string("model").value_or(""));
  if (!model) return error_response(503, "no replica has joined yet");
  if (!model->tokenizer) throw FieldError("model", model->no_text);
  if (!fields.has("tokens") || !fields.at("tokens").is_array()) throw FieldError("tokens", "tokens must be a list of token ids");
  std::vector<int32_t> ids;
  for (const json& id : fields.at("tokens")) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= model->card.vocab_size()) {
      throw FieldError("tokens", fmt::format("tokens[{}] is no token id below {}", ids.size(), model->card.vocab_size()));
    }
    ids.push_back(id.get<int32_t>());
  }
  return json_response({{"prompt", model->tokenizer->decode(ids, false)}});
}

}  // namespace accrete::coordinator
