#!/usr/bin/env bash
# Installs what building and running Accrete needs, on Debian 12 or Ubuntu 24.04. Does nothing when everything is there.
# As root, or as a user who may sudo.
set -euo pipefail

die() { echo "install: error: $*" >&2; exit 1; }

command -v apt-get >/dev/null || die "no apt-get here; the packages are listed in this script, install their like by hand"
boost=libboost1.81-dev
if [ -r /etc/os-release ]; then
  . /etc/os-release
  [ "${ID:-}" = ubuntu ] && boost=libboost1.83-dev
fi

packages=(
  g++ cmake ninja-build pkg-config git
  "$boost" libspdlog-dev libfmt-dev protobuf-compiler libprotobuf-dev nlohmann-json3-dev libcli11-dev libyaml-cpp-dev libssl-dev libpcre2-dev
  libopenblas-dev libhwloc-dev libopenmpi-dev openmpi-bin openssh-client
  libgtest-dev libbenchmark-dev
  python3 python3-venv python3-pip iproute2 curl ca-certificates
)
# Nice to have: compiler cache.
optional=(ccache)

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | cut -c1-2)" = ii ] || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then
  echo "install: everything is there"
  exit 0
fi

root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "not root and no sudo; missing: ${missing[*]}"
  root=(sudo)
fi
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }

echo "install: ${#missing[@]} packages: ${missing[*]}"
apt update >/dev/null || die "apt-get update failed"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! apt install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  die "apt-get install failed"
fi
apt install -y --no-install-recommends "${optional[@]}" >/dev/null 2>&1 || true
pkg-config --exists openblas || die "openblas.pc is not found by pkg-config although libopenblas-dev is installed"
echo "install: done"
