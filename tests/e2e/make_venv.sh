#!/usr/bin/env bash
# make_venv.sh FOLDER: a Python environment with tests/e2e/requirements.txt, made once for each state of that file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=$1
stamp=$venv/requirements.installed
if [ -x "$venv/bin/python" ] && cmp -s "$here/requirements.txt" "$stamp"; then exit 0; fi
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
  { echo "make_venv: error: cannot install tests/e2e/requirements.txt; check the network" >&2; exit 1; }
cp "$here/requirements.txt" "$stamp"
