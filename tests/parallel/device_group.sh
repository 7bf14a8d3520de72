#!/bin/bash
# device_group.sh PROGRAM [bench]: tests/parallel/device_group_main.cpp on 2 and 4 ranks: every check, then ranks that die or hang. On one GPU
# the ranks share it through CUDA's multi-process service (MPS), with a host name of its own for each towards NCCL, which refuses two ranks
# of one host on one GPU; with several GPUs each rank has its own. `bench` prints JSON lines instead. 77: it cannot run here, and why.
set -u

if [ "${1:-}" = --as-rank ]; then  # one rank: its own host towards NCCL if told to; its exit code, which mpirun would hide
  shift
  rank=${OMPI_COMM_WORLD_RANK:?}
  [ -z "${DEVICE_GROUP_SHARED:-}" ] || export NCCL_HOSTID="rank-$rank"
  "$@"
  code=$?
  [ -z "${DEVICE_GROUP_CODES:-}" ] || echo "rank $rank ended with $code"
  exit $code
fi

program=$1 mode=${2:-check}
skip() { echo "skipped: $*"; exit 77; }
gpus=$("$program" --devices 2>&1)
case $gpus in ''|*[!0-9]*) skip "$gpus" ;; esac

scratch=$(mktemp -d)
log=$scratch/log
mps=
start_mps() {
  export CUDA_MPS_PIPE_DIRECTORY=$scratch/pipe CUDA_MPS_LOG_DIRECTORY=$scratch/mps-log
  mkdir -p "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  nvidia-cuda-mps-control -d >"$log" 2>&1 && mps=yes  # away from this script's output, which the daemon would keep open
}
stop_mps() {  # quit waits for clients
  [ -n "$mps" ] || return 0
  mps=
  echo quit | timeout 20 nvidia-cuda-mps-control >/dev/null 2>&1 || echo "quit -t 1" | timeout 20 nvidia-cuda-mps-control >/dev/null 2>&1
}
finish() { stop_mps; rm -rf "$scratch"; }
trap finish EXIT
trap 'exit 130' INT TERM

if [ "$gpus" -eq 1 ]; then
  command -v nvidia-cuda-mps-control >/dev/null || skip "one GPU and no nvidia-cuda-mps-control to share it"
  export DEVICE_GROUP_SHARED=1
  start_mps || skip "the multi-process service does not start: $(tail -n 1 "$log")"
fi
export NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_NVLS_ENABLE=0
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
  local ranks=$1 group=$2 how=$3 wanted=$(($1 - 1)) name="$*" code reports codes
  # Without --enable-recovery mpirun ends the others as soon as one rank ends, and nobody would hear of the rest.
  launch 60 "$ranks" -x DEVICE_GROUP_CODES=1 --enable-recovery -- --group "$group" --fail "$how" --timeout-ms 3000 "${@:4}" >"$log" 2>&1
  code=$?
  reports=$(grep -c '^ok: rank ' "$log")
  codes=$(grep -c '^rank [0-9]* ended with 1$' "$log")
  if [ "$code" -ne 124 ] && [ "$code" -ne 137 ] && [ "$reports" -eq "$wanted" ] && [ "$codes" -eq "$wanted" ]; then
    echo "ok   $ranks ranks: $name"
    grep '^ok: rank ' "$log" | sed 's/^/       /'
  else
    echo "FAIL $ranks ranks: $name: $reports reports and $codes exit codes of $wanted, mpirun ended with $code"
    sed 's/^/       /' "$log" | tail -n 40
    failures=$((failures + 1))
  fi
  # A client that was killed may leave the service in doubt.
  if [ -n "${DEVICE_GROUP_SHARED:-}" ] && [ "$how" = kill ]; then stop_mps; start_mps; fi
}

for ranks in 2 4; do
  if [ "$gpus" -gt 1 ] && [ "$gpus" -lt "$ranks" ]; then
    echo "left out: $ranks ranks on $gpus GPUs"
    continue
  fi
  if [ "$mode" = bench ]; then
    launch 300 "$ranks" -- --bench || failures=$((failures + 1))
    continue
  fi
  launch 400 "$ranks" -- || { echo "FAIL $ranks ranks: the checks ended with $?"; failures=$((failures + 1)); }
  for group in nccl one-shot; do
    for how in hang kill; do
      expect_reports "$ranks" "$group" "$how"
      [ "$ranks" -eq 2 ] && expect_reports "$ranks" "$group" "$how" --in-graph
    done
  done
done
echo "device_group: $failures failed"
[ "$failures" -eq 0 ]
