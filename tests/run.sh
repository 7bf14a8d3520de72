#!/usr/bin/env bash
# tests/run.sh            installs what is missing, builds the release preset, runs every test
# tests/run.sh --quick    the unit tests alone: no network, no end-to-end runs
# tests/run.sh --sanitize the unit tests under address + undefined-behaviour and under thread sanitizers
# ACCRETE_JOBS: parallel build and test jobs (default: cores).
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${ACCRETE_JOBS:-$(nproc)}
mode=full
case ${1:-} in
  '') ;;
  --quick) mode=quick ;;
  --sanitize) mode=sanitize ;;
  *) sed -n '2,5p' "$0" | sed 's/^# //' >&2; exit 2 ;;
esac

started=$SECONDS
say() { echo "run: $* ($((SECONDS - started)) s)"; }

build() {  # build PRESET [TARGET...]
  local preset=$1; shift
  local launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CUDA_COMPILER_LAUNCHER=ccache)
  cmake --preset "$preset" "${launcher[@]}" >"build/configure-$preset.log" 2>&1 ||
    { tail -n 30 "build/configure-$preset.log" >&2; exit 1; }
  cmake --build --preset "$preset" -j "$jobs" "$@"
  say "built $preset"
}

# Unit tests of several folders run side by side; ranks-as-threads and mpirun tests share the cores, so a test may be slow but must
# not fail for it. Tests that start whole servers are labelled e2e and run one after another (tests/e2e/CMakeLists.txt).
run_ctest() {  # run_ctest PRESET [CTEST OPTIONS...]
  local preset=$1; shift
  ctest --test-dir "build/$preset" --output-on-failure -j "$jobs" "$@"
}

model() {  # the default model for tests that want a real one; without network and cache they skip and say why
  if path=$(bash launch/fetch_model.sh); then export ACCRETE_TEST_MODEL=$path; else say "no model: tests that need it skip"; fi
}

mkdir -p build
bash launch/install.sh
say "packages"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
case $mode in
  quick)
    build release
    run_ctest release -LE 'e2e|slow' ;;
  sanitize)
    model
    for preset in cpu-asan cpu-tsan; do
      build "$preset"
      # gcc's stack of freed frames is not aligned for AVX-512 (its bug 110027); gcc 13 turns that check on, gcc 12 does not.
      # Open MPI leaks at exit and races inside its own library; both are suppressed by name in tests/sanitizers/. For
      # the names of what leaks under mpirun, stacks are unwound in full: libc has no frame pointers.
      export ASAN_OPTIONS=detect_stack_use_after_return=0 LSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/lsan.supp
      export TSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/tsan.supp
      run_ctest "$preset" -LE 'e2e|style|slow|mpi'
      ASAN_OPTIONS=$ASAN_OPTIONS:fast_unwind_on_malloc=0 run_ctest "$preset" -L mpi -LE 'e2e|style|slow'
    done ;;
  full)
    model
    # Before the build is configured: its Python runs the openai test.
    bash tests/e2e/make_venv.sh build/venv || say "no packages for the openai client: its test skips"
    build release
    run_ctest release ;;
esac
