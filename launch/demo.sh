#!/usr/bin/env bash
# Everything once, on a fresh Debian 12 or Ubuntu 24.04: packages, build, model, a coordinator and a replica of TP x PP ranks under
# mpirun, whose caches compress by the default model's learned decisions, a chat answer streamed through the OpenAI-compatible API, slots and
# compression ratio of its caches, then the same from the unmodified model. TP, PP (default 2 x 1), PORT and PROMPT can be set. Exit code 0: all of it worked.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
tp=${TP:-2} pp=${PP:-1}
prompt=${PROMPT:-Explain in two sentences why the sky is blue.}
accrete=$PWD/build/release/bin/accrete
logs=$(mktemp -d)
bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
step() { echo; echo "${bold}== $* ($((SECONDS - started)) s)${plain}"; }
die() { echo "demo: error: $*" >&2; tail -n 20 "$logs"/*.log >&2 2>/dev/null || true; exit 1; }

pids=()
stop() {  # a coordinator and a replica: the replica first, so that it is not surprised
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  pids=()
}
trap 'stop; rm -rf "$logs"' EXIT

text() { python3 -u launch/demo_text.py "$@"; }

start() {  # start NAME [worker flags...]
  local name=$1; shift
  port=${PORT:-$(text port)} rpc=$(text port)
  "$accrete" coordinator --host 127.0.0.1 --port "$port" --rpc-port "$rpc" >"$logs/$name-coordinator.log" 2>&1 &
  coordinator=$!
  bash launch/mpirun.sh -np $((tp * pp)) "$accrete" worker "$model" -tp "$tp" -pp "$pp" --max-model-len 2048 \
    --kv-cache-memory-bytes 256MiB --coordinator "127.0.0.1:$rpc" "$@" >"$logs/$name-replica.log" 2>&1 &
  replica=$!
  pids=("$replica" "$coordinator")
  for _ in $(seq 600); do
    curl -sf --max-time 5 "http://127.0.0.1:$port/health" >/dev/null && return
    kill -0 "$coordinator" 2>/dev/null || die "the coordinator ended"
    kill -0 "$replica" 2>/dev/null || die "the replica ended"
    sleep 0.2
  done
  die "/health does not answer 200 after 120 s"
}

chat() {  # chat MAX_TOKENS: streams the answer and prints its text as it comes
  curl -sN --fail --max-time 300 "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
    -d "$(text request "$prompt" "$1")" | text chat
}

summary() { curl -sf --max-time 10 "http://127.0.0.1:$port/v1/cluster" | text cluster; }

step "packages"
bash launch/install.sh
step "build"
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
mkdir -p build
cmake --preset release "${launcher[@]}" >build/configure-release.log 2>&1 || { tail -n 20 build/configure-release.log; die "cmake failed"; }
cmake --build --preset release --target accrete -j "$(nproc)" || die "the build failed"
step "model"
model=$(bash launch/fetch_model.sh) || die "no model"
"$accrete" inspect "$model" --adapter launch/default_model -tp "$tp" -pp "$pp"

step "a coordinator and a replica of $tp x $pp ranks under mpirun, caches compressed by learned decisions"
start learned --adapter launch/default_model
summary
step "chat: $prompt"
chat 96 || die "no answer"
stop

step "the same from the unmodified model"
start plain
chat 96 || die "no answer"
summary
stop
step "all of it worked"
