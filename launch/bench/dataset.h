// The prompts of a benchmark: token ids and how many tokens to ask for.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace accrete::launch {

struct BenchPrompt {
  std::vector<int32_t> tokens;
  int64_t output_len = 0;
  bool pretend = false;  // worker::Request::pretend_prompt
};

struct RandomPrompts {
  int64_t count = 0;
  int64_t input_len = 0;
  int64_t output_len = 0;
  double range_ratio = 0.0;  // lengths are drawn from [len * (1 - r), len * (1 + r)]
  int64_t vocab = 0;         // V: ids are drawn from [0, V)
  uint64_t seed = 0;
};

// The same prompts for the same arguments, on every machine.
std::vector<BenchPrompt> random_prompts(const RandomPrompts& wanted);

using TokenizeFn = std::function<std::vector<int32_t>(const std::string& text)>;

struct SharegptPrompts {
  std::string path;        // JSON: [{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}]
  int64_t count = 0;       // at most; those that fit are repeated when there are fewer
  int64_t output_len = 0;  // 0: as long as the recorded answer
  int64_t max_len = 0;     // prompt + answer; longer conversations are left out
};

// Throws std::runtime_error naming the file when it is not of that form or no conversation fits.
std::vector<BenchPrompt> sharegpt_prompts(const SharegptPrompts& wanted, const TokenizeFn& tokenize);

}  // namespace accrete::launch
