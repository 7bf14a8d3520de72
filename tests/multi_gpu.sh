#!/usr/bin/env bash
# tests/multi_gpu.sh [OUT]            on a machine with several GPUs: builds the cuda preset, checks the sharded engine on them and times it;
#                                     JSON, and a log for each stage, in OUT (default build/multi-gpu)
# tests/multi_gpu.sh --checks [OUT]   the checks alone
# tests/multi_gpu.sh --rehearse [OUT] anywhere: the same commands with a tiny model on the CPU, so that no minute on the large machine goes to
#                                     a mistake in this script (needs ACCRETE_BUILD)
# ACCRETE_JOBS, ACCRETE_TEST_MODEL, ACCRETE_DEPS, ACCRETE_BUILD: as tests/gpu.sh has them. NCCL_NVLS_ENABLE is 0 unless set.
set -uo pipefail
cd "$(dirname "$0")/.."
mode=all
case ${1:-} in
  --checks) mode=checks; shift ;;
  --rehearse) mode=rehearse; shift ;;
  -*) sed -n '2,7p' "$0" | sed 's/^# //' >&2; exit 2 ;;
esac
out=$(realpath -m "${1:-build/multi-gpu}")
if [ "$mode" = rehearse ]; then
  [ -n "${ACCRETE_BUILD:-}" ] || { echo "multi_gpu: --rehearse needs ACCRETE_BUILD" >&2; exit 2; }
  gpus=2
else
  gpus=$(nvidia-smi -L 2>/dev/null | grep -c GPU)
  [ "$gpus" -ge 2 ] || { echo "multi_gpu: $gpus GPUs here (nvidia-smi -L); several are needed" >&2; exit 1; }
fi
. tests/stages.sh
stages_begin "$out"
prepare multi_gpu
accrete=$build/bin/accrete
date -u +%FT%TZ >"$out/machine.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >>"$out/machine.txt" 2>&1
nvidia-smi topo -m >>"$out/machine.txt" 2>&1

shapes=()  # T P
for shape in '2 1' '1 2' '4 1' '2 2' '1 4' '8 1' '2 4' '4 2'; do
  read -r tensor stages <<<"$shape"
  [ $((tensor * stages)) -gt "$gpus" ] || shapes+=("$shape")
done

# Correct: tokens and log probabilities as on one GPU, sums, ranks that die or hang, servers whose ranks are killed.
stage shards "$build/bin/test_worker" --gtest_filter='*GpuShards*:GpuReplica.ShardsAndStagesAgreeWithOneRank'
stage groups bash tests/parallel/device_group.sh "$build/bin/device_groups"
if [ "$mode" != rehearse ]; then stage servers ctest --test-dir "$build" -R 'e2e\.(faults|one_liner)$' --output-on-failure; fi
[ "$mode" != checks ] || stages_end multi_gpu

# Fast: sums by size; then decodes at the largest batch, sums by NCCL and by one kernel; then prompts and decodes together under a steady load.
sums() { bash tests/parallel/device_group.sh "$build/bin/device_groups" bench | tee "$out/all_reduce.jsonl"; }
stage all-reduce sums
model=llama-2-70b lengths=('3072 1024' '2048 2048') quantizations=(bf16 fp8) common=(--load-format dummy --gpu-memory-utilization 0.95) steady=15 batch=()
if [ "$mode" = rehearse ]; then
  model=tiny lengths=('64 1600') quantizations=(bf16) common=(--load-format dummy --device cpu --cpu-threads 1) steady=1 batch=(--batch-size 4 --steps 800)
fi
batch_of() { python3 -c 'import json, sys; print(*[r["batch"] for r in json.load(open(sys.argv[1]))["rows"] if r["cr"] == float(sys.argv[2])])' "$@" 2>/dev/null; }
for shape in "${shapes[@]}"; do
  read -r tensor stages <<<"$shape"
  for quantization in "${quantizations[@]}"; do
    flags=("${common[@]}" -tp "$tensor" -pp "$stages")
    [ "$quantization" = bf16 ] || flags+=(--quantization "$quantization")
    name=$quantization-tp$tensor-pp$stages
    for length in "${lengths[@]}"; do
      read -r input output <<<"$length"
      for all_reduce in group one-shot; do
        if [ "$all_reduce" = one-shot ] && { [ "$tensor" = 1 ] || [ "$mode" = rehearse ]; }; then continue; fi
        breakdown=()
        [ "$length" != "${lengths[0]}" ] || breakdown=(--breakdown)
        stage "decode-$name-$input-$all_reduce" timeout 300 "$accrete" bench decode "$model" "${flags[@]}" "${batch[@]}" "${breakdown[@]}" \
          --all-reduce "$all_reduce" --input-len "$input" --output-len "$output" --compression-ratios 1,2,4 \
          --output-json "$out/decode-$name-$input-$all_reduce.json"
      done
      for ratio in 1 4; do
        sequences=$(batch_of "$out/decode-$name-$input-group.json" "$ratio")
        [ -n "$sequences" ] || continue  # the decode failed, and said so
        synthetic=()
        [ "$ratio" = 1 ] || synthetic=(--dmc-synthetic-cr "$ratio")
        stage "steady-$name-$input-cr$ratio" timeout 300 "$accrete" bench throughput "$model" "${flags[@]}" "${synthetic[@]}" --steady "$steady" \
          --max-num-seqs "$sequences" --max-num-batched-tokens $((sequences * (input + output) / output)) --input-len "$input" --output-len "$output" \
          --num-prompts $((4 * sequences)) --output-json "$out/steady-$name-$input-cr$ratio.json"
      done
    done
  done
done

# Shards against replicas: all GPUs in one replica, in two, in four, behind one coordinator.
free_port() { python3 launch/demo_text.py port; }
serve_and_load() {  # serve_and_load NAME T R
  local server code=0 port
  port=$(free_port)
  "$accrete" serve "$model" "${common[@]}" -tp "$2" -dp "$3" --host 127.0.0.1 --port "$port" --rpc-port "$(free_port)" --max-model-len $((input + output)) >"$out/$1-server.log" 2>&1 &
  server=$!
  for _ in $(seq 600); do
    curl -sf --max-time 5 "http://127.0.0.1:$port/health" >/dev/null && break
    kill -0 "$server" 2>/dev/null || { tail -n 20 "$out/$1-server.log"; wait "$server"; return 1; }
    sleep 0.5
  done
  timeout 240 "$accrete" bench serve --host 127.0.0.1 --port "$port" --num-prompts "$load" --random-input-len "$input" --random-output-len "$output" \
    --output-json "$out/$1.json" || code=$?
  kill "$server"
  wait "$server"
  return "$code"
}
read -r input output <<<"${lengths[0]}"
load=$((64 * gpus))
[ "$mode" != rehearse ] || load=8 output=64
for replicas in 1 2 4; do
  tensor=$((gpus / replicas))
  [ "$tensor" -ge 1 ] || continue
  stage "replicas-$replicas-tp$tensor" serve_and_load "replicas-$replicas-tp$tensor" "$tensor" "$replicas"
done
stages_end multi_gpu
