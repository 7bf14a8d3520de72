// accrete bench kernels: every CUDA kernel at the shapes of Llama 2, beside the GPU's limits measured in the same run.
#include <fmt/format.h>

#include <memory>
#include <regex>
#include <stdexcept>

#include "launch/bench/kernels/kernel_bench.h"
#include "launch/commands/commands.h"
#if defined(ACCRETE_CUDA)
#include "kernels/device/device_memory.h"
#endif

namespace accrete::launch {
namespace {

struct KernelFlags {
  std::vector<std::string> models;
  KernelBenchOptions options;
};

int run(KernelFlags& flags) {
  KernelBenchOptions& options = flags.options;
  try {
    const std::regex checked(options.filter);
  } catch (const std::regex_error& error) {
    throw UsageError(fmt::format("--filter {}: not a regular expression: {}", options.filter, error.what()));
  }
  if (flags.models.empty()) flags.models = options.quick ? std::vector<std::string>{"7b", "70b-tp8"} : known_model_names();
  options.models = model_shapes(flags.models);
#if defined(ACCRETE_CUDA)
  std::string why;
  if (device_count(&why) == 0) {
    throw std::runtime_error(fmt::format("needs a GPU, and there is none: {}; check nvidia-smi and CUDA_VISIBLE_DEVICES", why));
  }
  return run_kernel_bench(options) ? kExitOk : kExitFailed;
#else
  throw std::runtime_error("needs a GPU, and this build has no CUDA: build where nvcc is, with -DACCRETE_CUDA=ON");
#endif
}

}  // namespace

Command add_bench_kernels(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("kernels", "every CUDA kernel at the shapes of Llama 2, beside the GPU's measured limits");
  auto flags = std::make_shared<KernelFlags>();
  app->add_option("--model", flags->models, "7b, 13b, 70b, 70b-tp8 (a shard of eight); several with commas; default: all, with --quick 7b and 70b-tp8")
      ->delimiter(',')->check(CLI::IsMember(known_model_names()));
  app->add_option("--filter", flags->options.filter, "only what matches in \"kernel model shape\"")->type_name("REGEX");
  app->add_flag("--quick", flags->options.quick, "fewer shapes and repetitions");
  app->add_option("--output-json", flags->options.output_json, "write the figures there")->type_name("FILE");
  return {app, [flags] { return run(*flags); }};
}

}  // namespace accrete::launch
