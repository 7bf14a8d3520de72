#!/usr/bin/env bash
# The default model's retrofit on one GPU, from a folder that holds everything and needs no network:
#   model.gguf (or model/), prompts.jsonl, train-*.bin[.xz], held-out*.bin[.xz], and this package as retrofit/
#
#   bash retrofit/run.sh FOLDER check    the compiled layer beside the plain one, then a minute of training: compiles, measures speed
#   bash retrofit/run.sh FOLDER          samples chats, trains to CR 4, fine-tunes the snapshot of CR 2, packs results in FOLDER/back
#
# Every step that is done is skipped when the script is started again; training goes on from its last checkpoint.
# MINUTES (20), MINUTES_CR2 (3), MINUTES_CHAT (1.5), RANK (32), LM_SHARE (0.1), ROWS (16), MICRO (2), LENGTH (2048), LR (1e-3).
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: run.sh FOLDER [check]" >&2; exit 2; }
cd "$1"
folder=$PWD
export PYTHONPATH=$folder:$folder/extra TORCHINDUCTOR_CACHE_DIR=$folder/inductor TRITON_CACHE_DIR=$folder/triton PYTHONUNBUFFERED=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
model=model.gguf
[ -d model ] && model=model
python=${PYTHON:-python3}
say() { echo "run: $(date +%T) $*"; }

train() { # output minutes, further flags
  local output=$1 minutes=$2
  shift 2
  "$python" -m retrofit "$model" --data "train-*.bin*=${TEXT_SHARE:-0.8}" $chats --eval-data "held-out*.bin*" --output "$output" \
    --minutes "$minutes" --lora-rank "${RANK:-32}" --lm-share "${LM_SHARE:-0.1}" --lr "${LR:-1e-3}" \
    --rows "${ROWS:-16}" --micro-batches "${MICRO:-2}" --length "${LENGTH:-2048}" ${FLAGS:-} "$@"
}

pack() { # every file below 15 MiB
  mkdir -p back
  for run in cr4 cr2; do
    [ -d "$run" ] || continue
    tar -cf - --exclude=checkpoint.pt --exclude='snapshot*.pt' "$run" | split -b 15000000 -d - "back/$run.tar."
  done
  say "results: $(ls back | tr '\n' ' ')"
}

chats=
[ -s chat.bin ] && chats="--data chat.bin=0.2"
if [ "${2:-}" = check ]; then
  say "self check"
  "$python" -m retrofit.selfcheck
  say "a minute of training"
  rm -rf check
  train check "${MINUTES:-1.5}" --eval-seconds 30 --log-steps 5 --save-seconds 20
  grep -h '"step"' check/log.jsonl | tail -n 1
  exit 0
fi
if [ ! -s chat.bin ] && [ -s prompts.jsonl ]; then
  say "sampling chats"
  "$python" -m retrofit.sample "$model" prompts.jsonl --output chat.new --minutes "${MINUTES_CHAT:-1.5}" && mv chat.new chat.bin
fi
[ -s chat.bin ] && chats="--data chat.bin=0.2"
[ -f cr4/done ] || { say "CR 4"; train cr4 "${MINUTES:-20}" --branch-cr 2 && touch cr4/done; }
pack
if [ -f cr4/snapshot-cr2.pt ] && [ ! -f cr2/done ] && [ "${MINUTES_CR2:-3}" != 0 ]; then
  say "CR 2"
  train cr2 "${MINUTES_CR2:-3}" --target-cr 2 --from cr4/snapshot-cr2.pt --lr "${LR_CR2:-5e-4}" && touch cr2/done
  pack
fi
say "done"
