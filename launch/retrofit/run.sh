#!/usr/bin/env bash
# The default model's retrofit on one GPU, from a folder that holds everything and needs no network:
#   a GGUF file (or model/), prompts.jsonl, train-*.bin[.xz], held-out*.bin[.xz], other*.bin[.xz] (if measured), and this package as retrofit/
#
#   bash retrofit/run.sh FOLDER check    the compiled layer beside the plain one, then 40 steps of training; measures speed
#   bash retrofit/run.sh FOLDER          samples chats, trains to CR 4, fine-tunes the snapshot of CR 2, packs results in FOLDER/back
#
# Every step that is done is skipped when the script is started again; training goes on from its last checkpoint.
# Minutes include compiling: MINUTES (17), MINUTES_CR2 (2), MINUTES_CHAT (2.2). Of the training: RANK (32), LM_SHARE (0.1),
# CHAT_SHARE (0.3), CR_WEIGHT (2), LR (1e-3), LR_CR2 (5e-4), ROWS (16), MICRO (1), LENGTH (2048). FLAGS: further flags of `accrete retrofit`,
# such as "--attention flash", or "--attention flash --enforce-eager" where Triton cannot compile.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: run.sh FOLDER [check]" >&2; exit 2; }
cd "$1"
folder=$PWD
export PYTHONPATH=$folder:$folder/extra TORCHINDUCTOR_CACHE_DIR=$folder/inductor TRITON_CACHE_DIR=$folder/triton PYTHONUNBUFFERED=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
model=model
[ -d model ] || model=$(ls ./*.gguf) # one; its name goes into the adapter
python=${PYTHON:-python3}
say() { echo "run: $(date +%T) $*"; }

train() { # output, further flags
  local output=$1 chats=() measured=(--eval-data "held-out=held-out*.bin*")
  shift
  [ -s chat.bin ] && chats=(--data "chat.bin=${CHAT_SHARE:-0.3}")
  compgen -G 'other*.bin*' >/dev/null && measured+=(--eval-data "other=other*.bin*")
  [ -s chat-held-out.bin ] && measured+=(--eval-data "chats=chat-held-out.bin")
  # shellcheck disable=SC2086
  "$python" -m retrofit "$model" --data "train-*.bin*=0.7" "${chats[@]}" "${measured[@]}" --output "$output" \
    --lora-rank "${RANK:-32}" --lm-share "${LM_SHARE:-0.1}" --lr "${LR:-1e-3}" --cr-weight "${CR_WEIGHT:-2}" \
    --rows "${ROWS:-16}" --micro-batches "${MICRO:-1}" --length "${LENGTH:-2048}" ${FLAGS:-} "$@"
}

pack() { # every file below 15 MiB
  mkdir -p back
  for run in cr4 cr2; do
    [ -d "$run" ] || continue
    tar -cf - --exclude=checkpoint.pt --exclude='snapshot*.pt' "$run" | split -b 15000000 -d - "back/$run.tar."
  done
  say "results: $(ls back | tr '\n' ' ')"
}

if [ "${2:-}" = check ]; then
  say "self check"
  "$python" -c 'import os, sysconfig; print("Python.h:", os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))'
  "$python" -m retrofit.selfcheck ${ATTENTION:-}
  say "some steps of training"
  rm -rf check
  train check --steps "${STEPS:-40}" --eval-seconds 1000 --log-steps 5 --save-seconds 20
  grep -h '"step"' check/log.jsonl | tail -n 1
  exit 0
fi
if [ ! -s chat.bin ] && [ -s prompts.jsonl ]; then
  say "sampling chats"
  "$python" -m retrofit.sample "$model" prompts.jsonl --output chat.new --held-out chat-held-out.bin --minutes "${MINUTES_CHAT:-2.2}" && mv chat.new chat.bin
fi
[ -f cr4/done ] || { say "CR 4"; train cr4 --minutes "${MINUTES:-17}" --branch-cr 2 && touch cr4/done; }
pack
if [ -f cr4/snapshot-cr2.pt ] && [ ! -f cr2/done ] && [ "${MINUTES_CR2:-2}" != 0 ]; then
  say "CR 2"
  train cr2 --minutes "${MINUTES_CR2:-2}" --target-cr 2 --from cr4/snapshot-cr2.pt --lr "${LR_CR2:-5e-4}" && touch cr2/done
  pack
fi
say "done"
