#!/usr/bin/env bash
# Three "hosts" on this machine: network namespaces with an address each on one bridge. A coordinator runs on the first, a replica of
# three ranks spans all three under one mpirun, and a client on the second asks for an answer. Then the link of a host is cut while an
# answer streams: packets vanish, no connection is told, and yet everybody on both sides has to end.
# Needs root and the right to make namespaces; skips (77) and says why otherwise.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
accrete=${ACCRETE_BIN:-$root/build/release/bin/accrete}
model=${ACCRETE_TEST_MODEL:-}
skip() { echo "skipped: $*"; exit 77; }
fail() { echo "netns_hosts: FAILED: $*" >&2; tail -n 30 "$work"/*.log >&2; exit 1; }

[ -n "$model" ] || skip "ACCRETE_TEST_MODEL names no model"
[ "$(id -u)" = 0 ] || skip "not root"
command -v ip >/dev/null || skip "no ip command (package iproute2)"
tag=acc$$
ip netns add "${tag}b" 2>/dev/null || skip "network namespaces are not permitted here"

work=$(mktemp -d)
coordinator='' job=''
cleanup() {
  for pid in $job $coordinator; do kill "$pid" 2>/dev/null || true; done
  for pid in $job $coordinator; do wait "$pid" 2>/dev/null || true; done
  for name in b 1 2 3; do
    ip netns pids "$tag$name" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$tag$name" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap cleanup EXIT

in_host() { local n=$1; shift; ip netns exec "$tag$n" "$@"; }
# In the background: the shell that is forked becomes the command, so that $! is its process.
become_in_host() { local n=$1; shift; exec ip netns exec "$tag$n" "$@"; }
ip -n "${tag}b" link add bridge type bridge 2>/dev/null || skip "no bridges in this kernel"
ip -n "${tag}b" link set bridge up
for n in 1 2 3; do
  ip netns add "$tag$n"
  ip -n "$tag$n" link add e0 type veth peer name "p$n" netns "${tag}b" 2>/dev/null || skip "no veth pairs in this kernel"
  ip -n "${tag}b" link set "p$n" master bridge up
  ip -n "$tag$n" address add "10.77.0.$n/24" dev e0
  ip -n "$tag$n" link set e0 up
  ip -n "$tag$n" link set lo up
done

# Until every host gets an answer from every other one (a refusal: nobody listens on port 9). A link that has just come up still drops
# packets for up to a second, and mpirun's daemons do not try twice.
connected() {
  local from to
  for from in 1 2 3; do
    for to in 1 2 3; do
      in_host "$from" python3 -c 'import errno, socket, sys, time
until, refused = time.monotonic() + 10, False
while not refused and time.monotonic() < until:
    with socket.socket() as s:
        s.settimeout(0.5)
        refused = s.connect_ex((sys.argv[1], 9)) == errno.ECONNREFUSED
    if not refused: time.sleep(0.05)
sys.exit(not refused)' "10.77.0.$to" || fail "host $to is out of reach of host $from"
    done
  done
}
connected

# What mpirun calls instead of ssh: "agent HOST COMMAND...". A name of its own for each host keeps Open MPI's folders apart.
cat >"$work/agent" <<AGENT
#!/usr/bin/env bash
host=\$1; shift
exec ip netns exec "$tag\${host##*.}" unshare --uts bash -c 'hostname "host\$1"; shift; exec bash -c "\$*"' agent "\${host##*.}" "\$@"
AGENT
chmod +x "$work/agent"

wait_gone() {  # PID SECONDS: until it has ended
  for _ in $(seq $(($2 * 10))); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
  return 1
}
healthy() { in_host 2 curl -sf --max-time 5 http://10.77.0.1:8000/health >/dev/null; }
ranks_of() {  # HOST: the ids of its ranks
  for pid in $(ip netns pids "$tag$1"); do
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "^[^ ]*accrete worker" && echo "$pid"
  done
  return 0
}
left_over() {  # every process of the hosts but the coordinator
  for n in 1 2 3; do
    for pid in $(ip netns pids "$tag$n"); do
      [ "$pid" = "$coordinator" ] || echo "host$n:$pid:$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-60)"
    done
  done
}

become_in_host 1 "$accrete" coordinator --host 10.77.0.1 --port 8000 --rpc-port 8001 >"$work/coordinator.log" 2>&1 &
coordinator=$!

start_replica() {
  become_in_host 1 unshare --uts bash -c 'hostname host1; exec "$@"' start bash "$root/launch/mpirun.sh" -np 3 \
    --hosts 10.77.0.1:1,10.77.0.2:1,10.77.0.3:1 --interface e0 \
    --mpi "--mca plm_rsh_agent $work/agent --mca orte_keep_fqdn_hostnames 1 --mca btl tcp,self" -- \
    "$accrete" worker "$model" -tp 1 -pp 3 --coordinator 10.77.0.1:8001 --max-model-len 4096 --kv-cache-memory-bytes 128MiB \
    --cpu-threads 1 >"$work/replica.log" 2>&1 &
  job=$!
  for _ in $(seq 600); do
    healthy && return
    kill -0 "$job" 2>/dev/null || fail "the replica ended before it was ready"
    sleep 0.1
  done
  fail "/health did not answer 200"
}

start_replica
for n in 1 2 3; do
  ranks=$(ranks_of "$n" | wc -l)
  [ "$ranks" = 1 ] || fail "host $n runs $ranks ranks instead of 1"
done

answer=$(in_host 2 curl -sf --max-time 60 http://10.77.0.1:8000/v1/completions -H 'Content-Type: application/json' \
  -d '{"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}') || fail "no answer"
grep -q Paris <<<"$answer" || fail "unexpected answer: $answer"
echo "netns_hosts: one replica over three hosts answered: $(python3 -c 'import json,sys; print(json.loads(sys.argv[1])["choices"][0]["text"].strip())' "$answer")"

# Told to stop, the replica ends.
kill "$job"
wait_gone "$job" 20 || fail "the replica still runs 20 s after SIGTERM"
for _ in $(seq 50); do [ -n "$(left_over)" ] || break; sleep 0.1; done
[ -z "$(left_over)" ] || fail "left over after SIGTERM: $(left_over)"

# Cuts the link of host $1 while an answer streams. A client on the coordinator's host is told; the launcher returns 1; nobody is left.
cut_link() {
  local began code
  start_replica
  become_in_host 1 curl -sN --max-time 60 http://10.77.0.1:8000/v1/completions -H 'Content-Type: application/json' \
    -d '{"prompt": "One, two, three,", "max_tokens": 3500, "temperature": 0, "ignore_eos": true, "stream": true}' >"$work/stream.log" 2>&1 &
  local client=$!
  for _ in $(seq 100); do [ "$(wc -l <"$work/stream.log")" -gt 10 ] && break; sleep 0.1; done
  [ "$(wc -l <"$work/stream.log")" -gt 10 ] || fail "no answer streams"
  ip -n "${tag}b" link set "p$1" down
  began=$SECONDS
  while [ -n "$(left_over)" ] && [ $((SECONDS - began)) -lt 15 ]; do sleep 0.2; done
  [ -z "$(left_over)" ] || fail "15 s after the link of host $1 was cut there are still: $(left_over)"
  code=0; wait "$job" || code=$?
  [ "$code" = 1 ] || fail "the launcher returned $code instead of 1 after the link of host $1 was cut"
  wait "$client" || fail "the client's connection broke"
  grep -q '"error"' "$work/stream.log" || fail "the client was not told that its replica died"
  grep -q "on host[123] has been silent" "$work/replica.log" || fail "no log line names the lost rank and its host"
  echo "netns_hosts: after the link of host $1 was cut all ended within $((SECONDS - began)) s"
  ip -n "${tag}b" link set "p$1" up
  connected
}
cut_link 3
cut_link 1

kill "$coordinator"
wait_gone "$coordinator" 10 || fail "the coordinator still runs 10 s after SIGTERM"
exit 0
