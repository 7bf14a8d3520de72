#!/usr/bin/env bash
# make_venv.sh FOLDER [REQUIREMENTS]: a Python environment with tests/e2e/requirements.txt or another list of tests/e2e, made once for each
# state of that file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=$1
list=${2:-requirements.txt}
[ -f "$here/$list" ] || { echo "make_venv: error: tests/e2e/$list: no such file" >&2; exit 2; }
stamp=$venv/requirements.installed
if [ -x "$venv/bin/python" ] && cmp -s "$here/$list" "$stamp"; then exit 0; fi
rm -rf "$venv"
python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/$list" ||
  { echo "make_venv: error: cannot install tests/e2e/$list; check the network" >&2; exit 1; }
cp "$here/$list" "$stamp"
