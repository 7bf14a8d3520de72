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

jobs=${ACCRETE_JOBS:-$(nproc)}
build=${ACCRETE_BUILD:-$PWD/build/cuda}
logs=$PWD/build/gpu-logs
rm -rf "$logs" && mkdir -p "$logs"
rows=() failed=0

stage() {  # stage NAME COMMAND...: runs it, keeps its output, notes how it went
  local name=$1 began=$SECONDS code=0 word=passed
  shift
  "$@" >"$logs/$name.log" 2>&1 || code=$?
  [ "$code" = 0 ] || { word="FAILED ($code)"; failed=1; tail -n 40 "$logs/$name.log" >&2; }
  rows+=("$(printf '%-22s %-12s %6d s  %s' "$name" "$word" "$((SECONDS - began))" "$(summary "$name")")")
  return "$code"
}
summary() {  # what a stage's log says of itself, in a few words
  grep -hoE '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+|\[  PASSED  \] [0-9]+ tests|ERROR SUMMARY: [0-9]+ errors|Ceilings: .*' "$logs/$1.log" | tail -n 1
}
finish() {
  nvidia-smi -L
  printf '%s\n' "${rows[@]}"
  [ "$failed" = 0 ] && echo "gpu: all passed" || echo "gpu: FAILED, logs in $logs"
  exit "$failed"
}

if [ -n "${ACCRETE_DEPS:-}" ]; then
  export CMAKE_PREFIX_PATH=$ACCRETE_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH} PKG_CONFIG_PATH=$ACCRETE_DEPS/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
  export LD_LIBRARY_PATH=$ACCRETE_DEPS/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} CPATH=$ACCRETE_DEPS/include${CPATH:+:$CPATH} LIBRARY_PATH=$ACCRETE_DEPS/lib
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
if [ -z "${ACCRETE_BUILD:-}" ]; then
  stage configure cmake --preset cuda || finish
  stage build cmake --build --preset cuda -j "$jobs" || finish
fi
if [ -z "${ACCRETE_TEST_MODEL:-}" ] && path=$(bash launch/fetch_model.sh 2>/dev/null); then export ACCRETE_TEST_MODEL=$path; fi
[ -n "${ACCRETE_TEST_MODEL:-}" ] || echo "gpu: no model: tests that need it skip" >&2

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
finish
