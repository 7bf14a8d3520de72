// accrete profile: how many slots each head will hold, measured on a text; as JSON and as a heat map.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/bench/report.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/profile/heat_map.h"
#include "launch/profile/measure.h"
#include "launch/text/model_text.h"

namespace accrete::launch {
namespace {

struct ProfileFlags {
  EngineFlags engine;
  std::string text;
  std::string out = "profile.json";
  std::string svg;
  int64_t length = 0;
  int64_t points = 8;
  int64_t max_tokens = 0;
};

// The longest window: as asked, else what the model can hold, at most the text.
int64_t window_length(const ProfileFlags& flags, int64_t tokens, int64_t max_model_len) {
  const int64_t room = max_model_len - 1;  // one token is sampled
  if (flags.length > room) throw UsageError(fmt::format("--length {}: at most {} with --max-model-len {}", flags.length, room, max_model_len));
  if (flags.length > tokens) throw UsageError(fmt::format("--length {}: --text {} has {} tokens", flags.length, flags.text, tokens));
  return flags.length > 0 ? flags.length : std::min(room, tokens);
}

int run_profile(ProfileFlags& flags) {
  if (flags.svg.empty()) flags.svg = std::filesystem::path(flags.out).replace_extension(".svg").string();
  if (flags.svg == flags.out) throw UsageError(fmt::format("--svg {}: is --out as well", flags.svg));
  ProfileText text{.name = flags.text == "-" ? "stdin" : std::filesystem::path(flags.text).filename().string(), .tokens = {}, .points = flags.points};
  const std::string words = read_text(flags.text, "--text");
  finish_engine_flags(flags.engine);
  OfflineEngine engine(flags.engine.options);
  text.tokens = ModelText(engine.model().tokenizer()).encode(words);
  if (flags.max_tokens > 0 && static_cast<int64_t>(text.tokens.size()) > flags.max_tokens) text.tokens.resize(static_cast<size_t>(flags.max_tokens));
  if (text.tokens.empty()) throw UsageError(fmt::format("--text {}: has no tokens", flags.text));
  text.longest = window_length(flags, static_cast<int64_t>(text.tokens.size()), engine.model().max_model_len());
  const SlotProfile profile = measure_profile(engine, text);
  write_file(flags.out, to_json(profile).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  write_file(flags.svg, heat_map_svg(profile));
  fmt::print("{}written: {}, {}\n", to_text(profile, 0), flags.out, flags.svg);
  return kExitOk;
}

}  // namespace

Command add_profile(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("profile", "slots of every head as a function of length, measured on a text");
  auto flags = std::make_shared<ProfileFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--text", flags->text, "the text; - reads stdin")->required()->type_name("FILE");
  app->add_option("--out", flags->out, "the profile as JSON")->type_name("FILE")->capture_default_str();
  app->add_option("--svg", flags->svg, "the heat map; default: beside --out")->type_name("FILE");
  app->add_option("--length", flags->length, "tokens of the longest stretch; 0: --max-model-len - 1, at most the text")
      ->check(CLI::Range(0, 1 << 28))->capture_default_str();
  app->add_option("--points", flags->points, "lengths in equal steps that are measured beside powers of two")->check(CLI::Range(1, 1024))->capture_default_str();
  app->add_option("--max-tokens", flags->max_tokens, "read no more of the text; 0: all")->check(CLI::Range(0, 1 << 28))->capture_default_str();
  return {app, [flags] { return run_profile(*flags); }};
}

}  // namespace accrete::launch
