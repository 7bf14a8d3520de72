// accrete generate: answers prompts without a server; text to stdout as it comes, figures to stderr.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "launch/text/model_text.h"

namespace accrete::launch {
namespace {

struct GenerateFlags {
  EngineFlags engine;
  std::vector<std::string> prompts;
  std::string prompt_file;
  std::string system;
  std::string chat_template;
  bool raw = false;
  bool ignore_eos = false;
  int64_t max_tokens = 256;
  SamplingParams sampling;
};

// Each of --prompt, or the lines-as-one text of --prompt-file, or stdin.
std::vector<std::string> gather_prompts(const GenerateFlags& flags) {
  std::vector<std::string> prompts = flags.prompts;
  if (!flags.prompt_file.empty()) prompts.push_back(read_text(flags.prompt_file, "--prompt-file"));
  if (prompts.empty() && isatty(STDIN_FILENO) == 0) prompts.push_back(read_text("-", "stdin"));
  if (prompts.empty()) throw UsageError("--prompt: give a prompt, --prompt-file, or text on stdin");
  return prompts;
}

// Several prompts run together, but their answers are printed one after another: the first open one streams, later ones wait.
class OrderedPrinter {
 public:
  OrderedPrinter(const ModelText& text, const std::vector<std::string>& prompts) : prompts_(prompts), pending_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) streams_.emplace_back(text);
  }

  void take(const worker::RequestOutput& output) {
    Pending& pending = pending_[output.id];
    for (const worker::TokenOut& token : output.tokens) pending.text += streams_[output.id].feed(token.id);
    if (output.finish != worker::FinishReason::none) {
      pending.text += streams_[output.id].finish();
      pending.finished = true;
    }
    flush();
  }

 private:
  struct Pending {
    std::string text;
    bool started = false;
    bool finished = false;
  };

  void flush() {
    while (current_ < pending_.size()) {
      Pending& pending = pending_[current_];
      if (!pending.started && prompts_.size() > 1) fmt::print("{}>>> {}\n", current_ == 0 ? "" : "\n", prompts_[current_]);
      pending.started = true;
      std::fwrite(pending.text.data(), 1, pending.text.size(), stdout);
      pending.text.clear();
      if (pending.finished) std::fputc('\n', stdout);
      std::fflush(stdout);
      if (!pending.finished) return;
      ++current_;
    }
  }

  const std::vector<std::string>& prompts_;
  std::vector<ModelText::Stream> streams_;
  std::vector<Pending> pending_;
  size_t current_ = 0;
};

struct Totals {
  int64_t prompt_tokens = 0, tokens = 0;
  double slots = 0.0, ratio = 0.0;  // means over requests
  double first_token = 0.0;         // seconds until the first token of all
};

void print_totals(const Totals& totals, double seconds, const Provenance& provenance) {
  const double decoding = seconds - totals.first_token;
  fmt::print(stderr, "{} prompt tokens in {:.2f} s, {} tokens in {:.2f} s ({:.1f} tok/s), {:.0f} slots of a head, CR {:.2f}\n{}\n",
             totals.prompt_tokens, totals.first_token, totals.tokens, decoding,
             decoding > 0 ? static_cast<double>(totals.tokens) / decoding : 0.0, totals.slots, totals.ratio, provenance.line());
}

std::vector<worker::Request> make_requests(const GenerateFlags& flags, const std::vector<std::string>& prompts, const ModelText& text) {
  std::vector<worker::Request> requests;
  for (const std::string& prompt : prompts) {
    worker::Request request;
    const bool chat = !flags.raw && text.has_chat_template();
    request.prompt = chat ? text.encode_chat(flags.system, prompt) : text.encode(prompt);
    request.sampling = flags.sampling;
    request.sampling.seed = flags.engine.options.seed;
    request.max_tokens = flags.max_tokens;
    request.ignore_eos = flags.ignore_eos;
    requests.push_back(std::move(request));
  }
  return requests;
}

int run_generate(GenerateFlags& flags) {
  const std::vector<std::string> prompts = gather_prompts(flags);
  finish_engine_flags(flags.engine);
  OfflineEngine engine(flags.engine.options);
  const ModelText text(engine.model().tokenizer(), flags.chat_template);
  OrderedPrinter printer(text, prompts);
  Totals totals;
  std::string error;
  const double share = 1.0 / static_cast<double>(prompts.size());
  const auto start = std::chrono::steady_clock::now();
  engine.run(make_requests(flags, prompts, text), [&](const TimedOutput& timed) {
    const worker::RequestOutput& output = timed.output;
    if (totals.tokens == 0 && !output.tokens.empty()) totals.first_token = std::chrono::duration<double>(timed.when - start).count();
    totals.tokens += static_cast<int64_t>(output.tokens.size());
    if (output.finish == worker::FinishReason::error) error = output.error;
    totals.prompt_tokens += output.usage.prompt_tokens;
    totals.slots += output.finish == worker::FinishReason::none ? 0.0 : output.usage.kv_slots * share;
    totals.ratio += output.finish == worker::FinishReason::none ? 0.0 : output.usage.compression_ratio * share;
    printer.take(output);
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!error.empty()) throw std::runtime_error(error);
  print_totals(totals, seconds, provenance_of(engine.model(), engine.status().shape, 1));
  return kExitOk;
}

void add_sampling_flags(CLI::App& app, SamplingParams& sampling) {
  sampling.temperature = 0.0f;
  app.add_option("--temperature", sampling.temperature, "0: greedy")->check(CLI::Range(0.0, 100.0))->capture_default_str();
  app.add_option("--top-p", sampling.top_p, "1: off")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "0: off")->check(CLI::Range(-1, 1 << 24))->capture_default_str();
  app.add_option("--min-p", sampling.min_p, "0: off")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--repetition-penalty", sampling.repetition_penalty, "1: off")->check(CLI::Range(0.01, 100.0))->capture_default_str();
}

}  // namespace

Command add_generate(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("generate", "answer prompts without a server");
  auto flags = std::make_shared<GenerateFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--prompt", flags->prompts, "a prompt; may be given several times")->type_name("TEXT")->take_all()->expected(1);
  app->add_option("--prompt-file", flags->prompt_file, "a file whose text is the prompt; - reads stdin")->type_name("FILE");
  app->add_option("--system", flags->system, "system message of the chat template")->type_name("TEXT");
  app->add_option("--chat-template", flags->chat_template, "llama-2, llama-3, chatml or zephyr instead of the model's own");
  app->add_flag("--raw", flags->raw, "the prompt as it is, without the chat template");
  app->add_flag("--ignore-eos", flags->ignore_eos, "go on to --max-tokens whatever the model says");
  app->add_option("--max-tokens", flags->max_tokens, "longest answer")->check(CLI::Range(1, 1 << 28))->capture_default_str();
  add_sampling_flags(*app, flags->sampling);
  return {app, [flags] { return run_generate(*flags); }};
}

}  // namespace accrete::launch
