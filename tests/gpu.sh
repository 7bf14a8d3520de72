#!/usr/bin/env bash
# tests/gpu.sh             on a machine with a GPU: builds the cuda preset, runs every test labelled gpu and the servers' tests on the GPU
# tests/gpu.sh --sanitize  and a short pass of compute-sanitizer
# tests/gpu.sh --bench     and every kernel's benchmark, quickly
# ACCRETE_JOBS: parallel build jobs. ACCRETE_TEST_MODEL: a real model; else the default one, where it can be had.
# ACCRETE_DEPS: a folder with include/, lib/ and lib/pkgconfig/ of libraries that this machine lacks and cannot install.
# ACCRETE_BUILD: a build folder to use as it is.
set -uo pipefail
cd "$(dirname "$0")/.."
sanitize=0 bench=0
for argument in "$@"; do
  case $argument in
    --sanitize) sanitize=1 ;;
    --bench) bench=1 ;;
    *) sed -n '2,7p' "$0" | sed 's/^# //' >&2; exit 2 ;;
  esac
done
command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q GPU || { echo "gpu: no GPU here (nvidia-smi -L lists none)" >&2; exit 1; }

. tests/stages.sh
stages_begin "$PWD/build/gpu-logs"
prepare gpu

stage tests ctest --test-dir "$build" -L gpu --output-on-failure -j 4
stage servers ctest --test-dir "$build" -R 'e2e\.(one_liner|usage|faults|disconnect|bench_serve)$' --output-on-failure

if [ "$sanitize" = 1 ]; then
  sanitizer="compute-sanitizer --error-exitcode 9"
  stage memcheck $sanitizer "$build/bin/test_kernels" --gtest_filter='DecodeParts.OneLong*:CudaSteps.LearnedHeads*:CudaSteps.PoolRunsDry:*LinearOnCuda.EqualsTheProductWithinTheBound'
  stage racecheck $sanitizer --tool racecheck "$build/bin/test_kernels" --gtest_filter='DecodeParts.OneLongAmongShort:CudaSteps.LearnedGroups8'
  stage memcheck-cache $sanitizer "$build/bin/test_cache" --gtest_filter='*DeviceKvCache*'
  stage memcheck-engine $sanitizer "$build/bin/test_worker" --gtest_filter='GpuReplica.CompressesAsTheCpuDoes'
fi
[ "$bench" = 0 ] || stage kernels "$build/bin/accrete" bench kernels --quick --output-json "$logs/kernels.json"
stages_end gpu
