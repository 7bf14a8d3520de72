#include "launch/bench/steady.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "launch/bench/engine_requests.h"
#include "launch/cli/command_line.h"

namespace accrete::launch {

std::vector<BenchPrompt> steady_prompts(const SteadyLoad& load) {
  // While they come in, half of them on average take a token a step, and their ages span what the ramp leaves of a life:
  // running (input + (output - ramp) / 2) = ramp (step - running / 2)
  const int64_t middle = load.input_len + load.output_len / 2, ramp = load.running * middle / load.step_tokens + 1;
  if (ramp >= load.output_len) {
    throw UsageError(fmt::format("--steady: {} sequences of {} tokens take {} iterations of {} tokens to come in, and would end before: a larger "
                                            "--max-num-batched-tokens or --output-len, or a smaller --max-num-seqs",
                                            load.running, middle, ramp, load.step_tokens));
  }
  std::vector<BenchPrompt> prompts = random_prompts({.count = load.running, .input_len = load.input_len + load.output_len, .output_len = 0,
                                                     .range_ratio = 0.0, .vocab = load.vocab, .seed = load.seed});
  for (int64_t i = 0; i < load.running; ++i) {
    const int64_t age = (load.output_len - ramp) * (2 * (load.running - i) - 1) / (2 * load.running);
    BenchPrompt& prompt = prompts[static_cast<size_t>(i)];
    prompt.tokens.resize(static_cast<size_t>(load.input_len + age));
    prompt.output_len = load.output_len - age;
    prompt.pretend = true;
  }
  const std::vector<BenchPrompt> whole = random_prompts({.count = load.followers, .input_len = load.input_len, .output_len = load.output_len,
                                                         .range_ratio = 0.0, .vocab = load.vocab, .seed = load.seed + 1});
  prompts.insert(prompts.end(), whole.begin(), whole.end());
  return prompts;
}

SteadyRates measure_steady(OfflineEngine& engine, const std::vector<BenchPrompt>& prompts, const SteadyLoad& load, double seconds) {
  using Clock = std::chrono::steady_clock;
  SteadyRates rates, looked_at;  // up to a step, and up to a follower's first token
  Clock::time_point begin{}, last{};
  std::vector<bool> seen(prompts.size());
  int64_t in = 0, started = 0;
  bool looking = false, ended = false;
  const auto end = [&] {
    ended = true;
    const rpc::ReplicaReport report = engine.status().report;
    looked_at.running = report.running();
    looked_at.compression_ratio = report.mean_slots_ratio();
    for (size_t i = 0; i < prompts.size(); ++i) engine.cancel(i);
  };
  engine.run(engine_requests(prompts), [&](const TimedOutput& timed) {
    const worker::RequestOutput& output = timed.output;
    if (output.finish == worker::FinishReason::error) throw std::runtime_error(output.error);
    if (ended || output.tokens.empty()) return;
    const bool first = !seen[output.id], follower = static_cast<int64_t>(output.id) >= load.running;
    seen[output.id] = true;
    if (first) ++started;
    if (first && !follower) ++in;
    if (!looking) {
      looking = first && follower && in == load.running;
      begin = last = timed.when;
      return;
    }
    if (timed.when == begin) return;  // the same step
    if (timed.when != last) ++rates.iterations;
    last = timed.when;
    rates.output_tokens += static_cast<int64_t>(output.tokens.size());
    rates.seconds = std::chrono::duration<double>(timed.when - begin).count();
    if (!first) return;
    rates.prompt_tokens += load.input_len;
    rates.ran_dry = started == static_cast<int64_t>(prompts.size());
    looked_at = rates;
    if (rates.seconds >= seconds || rates.ran_dry) end();
  });
  if (!ended) throw std::runtime_error("--steady: all requests ended before the prompts of two followers were through: a larger --num-prompts");
  return looked_at;
}

}  // namespace accrete::launch
