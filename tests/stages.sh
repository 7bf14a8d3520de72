# Sourced by gpu.sh and multi_gpu.sh in the repository's root: stages that are run one after another, their logs, a table of how they went.
jobs=${ACCRETE_JOBS:-$(nproc)}
build=${ACCRETE_BUILD:-$PWD/build/cuda}
rows=() failed=0

stages_begin() {  # stages_begin LOGS
  logs=$1
  rm -rf "$logs" && mkdir -p "$logs"
}
stage() {  # stage NAME COMMAND...: runs it, keeps its output, notes how it went; 77: it could not run here
  local name=$1 began=$SECONDS code=0 word=passed
  shift
  "$@" >"$logs/$name.log" 2>&1 || code=$?
  case $code in
    0) ;;
    77) word=skipped ;;
    *) word="FAILED ($code)"; failed=1; tail -n 40 "$logs/$name.log" >&2 ;;
  esac
  rows+=("$(printf '%-34s %-12s %6d s  %s' "$name" "$word" "$((SECONDS - began))" "$(summary "$name")")")
  return "$code"
}
summary() {  # what a stage's log says of itself, in a few words
  grep -hoE '[0-9]+% tests passed, [0-9]+ tests failed out of [0-9]+|\[  PASSED  \] [0-9]+ tests|ERROR SUMMARY: [0-9]+ errors|Ceilings: .*|^skipped: .*' \
    "$logs/$1.log" | tail -n 1
}
stages_end() {  # stages_end NAME
  nvidia-smi -L 2>/dev/null
  printf '%s\n' "${rows[@]}"
  [ "$failed" = 0 ] && echo "$1: all passed" || echo "$1: FAILED, logs in $logs"
  exit "$failed"
}
# Libraries from ACCRETE_DEPS, what ranks under mpirun want, a build unless ACCRETE_BUILD names one, the model.
prepare() {  # prepare NAME
  if [ -n "${ACCRETE_DEPS:-}" ]; then
    export CMAKE_PREFIX_PATH=$ACCRETE_DEPS${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH} PKG_CONFIG_PATH=$ACCRETE_DEPS/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
    export LD_LIBRARY_PATH=$ACCRETE_DEPS/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} CPATH=$ACCRETE_DEPS/include${CPATH:+:$CPATH} LIBRARY_PATH=$ACCRETE_DEPS/lib
  fi
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0}
  if [ -z "${ACCRETE_BUILD:-}" ]; then
    stage configure cmake --preset cuda || stages_end "$1"
    stage build cmake --build --preset cuda -j "$jobs" || stages_end "$1"
  fi
  if [ -z "${ACCRETE_TEST_MODEL:-}" ] && path=$(bash launch/fetch_model.sh 2>/dev/null); then export ACCRETE_TEST_MODEL=$path; fi
  [ -n "${ACCRETE_TEST_MODEL:-}" ] || echo "$1: no model: tests that need it skip" >&2
}
