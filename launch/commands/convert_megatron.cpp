// accrete convert-megatron: NVIDIA's DMC checkpoints to Hugging Face directories and back (launch/convert_megatron does it).
#include <memory>

#include "launch/commands/commands.h"
#include "launch/process/python_tool.h"

namespace accrete::launch {
namespace {

struct ConvertFlags {
  std::string source, destination;
  std::string tokenizer;
  int64_t vocab_size = 0;
  int64_t max_shard_size = 5'000'000'000;
  bool to_megatron = false;
};

int run_convert(const ConvertFlags& flags) {
  std::vector<std::string> command{python_program(), "-B", python_tool("convert_megatron")};
  if (flags.to_megatron) command.push_back("--to-megatron");
  if (!flags.tokenizer.empty()) command.push_back("--tokenizer=" + flags.tokenizer);
  if (flags.vocab_size > 0) command.push_back("--vocab-size=" + std::to_string(flags.vocab_size));
  command.push_back("--max-shard-size=" + std::to_string(flags.max_shard_size));
  command.insert(command.end(), {"--", flags.source, flags.destination});
  become(command);
}

}  // namespace

Command add_convert_megatron(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("convert-megatron", "NVIDIA's DMC checkpoints (Megatron-core) to a Hugging Face directory, and back");
  auto flags = std::make_shared<ConvertFlags>();
  app->add_option("src,--src", flags->source, "model_optim_rng.pt or the checkpoint's folder; with --to-megatron a Hugging Face directory")
      ->required()->type_name("SRC");
  app->add_option("dst,--dst", flags->destination, "the directory to make; with --to-megatron the .pt file")->required()->type_name("DST");
  app->add_option("--tokenizer", flags->tokenizer, "tokenizer.model, tokenizer.json or a folder with one of them, copied into DST")->type_name("PATH");
  app->add_option("--vocab-size", flags->vocab_size, "tokens of the vocabulary, the rows behind them are padding; 0: as args say, 32000 for Llama 2's tokenizer")
      ->check(CLI::Range(0, 1 << 24))->capture_default_str();
  app->add_option("--max-shard-size", flags->max_shard_size, "bytes of one safetensors file, e.g. 2GB")
      ->transform(CLI::AsSizeValue(true))->check(CLI::PositiveNumber)->capture_default_str();
  app->add_flag("--to-megatron", flags->to_megatron, "the other way round");
  return {app, [flags] { return run_convert(*flags); }};
}

}  // namespace accrete::launch
