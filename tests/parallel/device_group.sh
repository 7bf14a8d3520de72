#!/bin/bash
# device_group.sh PROGRAM [bench]: tests/parallel/device_group_main.cpp on 2 and 4 ranks: every check, then ranks that die or hang. On one GPU
# the ranks share it through CUDA's multi-process service (MPS), with a host name of its own for each towards NCCL, which refuses two ranks
# of one host on one GPU; without MPS two ranks take turns on it. With several GPUs each rank has its own. `bench` prints JSON lines instead.
# ACCRETE_DEVICE_GROUPS: the program, built elsewhere. 77: it cannot run here, and why.
set -u

if [ "${1:-}" = --as-rank ]; then  # one rank: its own host towards NCCL if told to; its exit code, which mpirun would hide
  shift
  rank=${OMPI_COMM_WORLD_RANK:?}
  [ -z "${DEVICE_GROUP_SHARED:-}" ] || export NCCL_HOSTID="rank-$rank"
  [ -n "${DEVICE_GROUP_CODES:-}" ] || exec "$@"
  "$@"
  code=$?
  echo "rank $rank ended with $code"
  exit $code
fi

program=${ACCRETE_DEVICE_GROUPS:-${1:?the program}} mode=${2:-check}
[ -x "$program" ] || { echo "device_group: $program is no program"; exit 2; }
skip() { echo "skipped: $*"; exit 77; }
devices() { timeout 30 "$program" --devices 2>&1 | tail -n 1; }
gpus=$(devices)
case $gpus in ''|*[!0-9]*) skip "${gpus:-$program does not answer}" ;; esac
command -v mpirun >/dev/null || skip "no mpirun"

scratch=$(mktemp -d)
log=$scratch/log
mps=0  # how often it was started; each time in folders of its own
start_mps() {
  mps=$((mps + 1))
  export CUDA_MPS_PIPE_DIRECTORY=$scratch/pipe$mps CUDA_MPS_LOG_DIRECTORY=$scratch/mps$mps
  mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  nvidia-cuda-mps-control -d >"$log" 2>&1  # away from this script's output, which the daemon would keep open
}
stop_mps() {  # quit waits for clients, and one that was killed may leave the service in doubt
  [ -n "${CUDA_MPS_PIPE_DIRECTORY:-}" ] || return 0
  local daemon
  daemon=$(cat "$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid" 2>/dev/null)
  echo quit | timeout 5 nvidia-cuda-mps-control >/dev/null 2>&1
  if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
    sleep 1
    pkill -KILL -P "$daemon"
    kill -KILL "$daemon" 2>/dev/null
  fi
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}
finish() { stop_mps; rm -rf "$scratch"; }
trap finish EXIT
trap 'exit 130' INT TERM

counts=()
for ranks in 2 4; do
  if [ "$gpus" -eq 1 ] || [ "$gpus" -ge "$ranks" ]; then counts+=("$ranks"); else echo "left out: $ranks ranks on $gpus GPUs"; fi
done
if [ "$gpus" -eq 1 ]; then
  export DEVICE_GROUP_SHARED=1
  if ! command -v nvidia-cuda-mps-control >/dev/null; then why="not installed"
  elif ! start_mps; then why=$(tail -n 1 "$log")
  else why=$(devices); fi
  if [ "$why" != 1 ]; then
    echo "one GPU, and no multi-process service ($why): 2 ranks take turns, slowly"
    stop_mps
    mps=0 counts=(2)
  fi
fi
export NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_NVLS_ENABLE=0 NCCL_DEBUG=${NCCL_DEBUG:-WARN}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# launch SECONDS RANKS [MPIRUN OPTIONS] -- ARGUMENTS
launch() {
  local limit=$1 ranks=$2 options=()
  shift 2
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  timeout --kill-after=10 "$limit" mpirun --oversubscribe --bind-to none "${options[@]}" -np "$ranks" bash "$0" --as-rank "$program" "$@"
}

failures=0
# expect_reports RANKS GROUP HOW [--in-graph]: rank 1 dies or hangs; every other rank must say so and end with code 1.
expect_reports() {
  local ranks=$1 group=$2 how=$3 wanted=$(($1 - 1)) name="$*" milliseconds=2000 code reports codes
  [ "$group" = nccl ] && milliseconds=5000  # it has to form within that, too
  # Without --enable-recovery mpirun ends the others as soon as one rank ends, and nobody would hear of the rest.
  launch 40 "$ranks" -x DEVICE_GROUP_CODES=1 --enable-recovery -- --group "$group" --fail "$how" --timeout-ms "$milliseconds" "${@:4}" >"$log" 2>&1
  code=$?
  reports=$(grep -c '^ok: rank ' "$log")
  codes=$(grep -c '^rank [0-9]* ended with 1$' "$log")
  if [ "$code" -ne 124 ] && [ "$reports" -eq "$wanted" ] && [ "$codes" -eq "$wanted" ]; then
    echo "ok   $name"
    grep '^ok: rank ' "$log" | sed 's/^/       /'
  else
    echo "FAIL $name: $reports reports and $codes exit codes of $wanted, mpirun ended with $code"
    sed 's/^/       /' "$log" | tail -n 40
    failures=$((failures + 1))
  fi
  if [ "$mps" -gt 0 ] && [ "$how" = kill ]; then stop_mps; start_mps; fi
}

# fail_in RANKS [--in-graph]: all ways to fail
fail_in() {
  local group how
  for group in nccl one-shot; do
    for how in hang kill; do expect_reports "$1" "$group" "$how" "${@:2}"; done
  done
}

for ranks in "${counts[@]}"; do
  if [ "$mode" = bench ]; then
    launch 200 "$ranks" -- --bench || failures=$((failures + 1))
    continue
  fi
  for group in staged one-shot nccl; do
    launch 90 "$ranks" -- --group "$group" --timeout-ms 15000 || { echo "FAIL $ranks ranks: $group ended with $?"; failures=$((failures + 1)); }
  done
done
if [ "$mode" != bench ]; then  # by graph with few ranks, one by one with many: each takes seconds
  fail_in "${counts[0]}" --in-graph
  fail_in "${counts[-1]}"
fi
echo "device_group: $failures failed"
[ "$failures" -eq 0 ]
