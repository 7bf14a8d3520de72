#!/usr/bin/env bash
# The texts of the default model's retrofit, on a Debian 12 machine (15 minutes on 2 cores, 7 GB):
#   bash launch/retrofit/corpus.sh FOLDER MODEL
# Downloads and unpacks the packages of corpus_packages.txt, and leaves in FOLDER what run.sh wants: train-*.bin.xz, held-out-000.bin.xz,
# prompts.jsonl, and other-000.bin, a domain that is never trained on. MODEL: the GGUF or Hugging Face directory whose tokenizer counts.
# PYTHON (python3) must have numpy, lxml, tokenizers and gguf. A package that this release lacks is left out and named.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
model=$(realpath "$2")
python=${PYTHON:-python3}
mkdir -p "$1/debs" "$1/src"
cd "$1"
export PYTHONPATH=$here/..
unpack() { # NAME -> src/NAME
  [ ! -d "src/$1" ] || return 0
  (cd debs && apt-get download "$1" >/dev/null 2>&1) || { echo "corpus: no package $1" >&2; return 1; }
  dpkg -x debs/"$1"_*.deb "src/$1.part" && mv "src/$1.part" "src/$1"
}
folders=()
while read -r name; do
  if unpack "$name"; then folders+=("src/$name"); fi
done < <(grep -v '^#' "$here/corpus_packages.txt")
for name in r-cran-janeaustenr bible-kjv bible-kjv-text; do unpack "$name"; done
cp -r src/bible-kjv-text/. src/bible-kjv/
"$python" -m retrofit.corpus "${folders[@]}" --output corpus
"$python" -m retrofit.literature src/r-cran-janeaustenr src/bible-kjv --output corpus/other.jsonl
"$python" -m retrofit.prompts corpus/train.jsonl --output prompts.jsonl
for part in train held-out other; do "$python" -m retrofit.tokens "$model" "corpus/$part.jsonl" --output "$part"; done
xz -T0 -f train-*.bin held-out-*.bin
