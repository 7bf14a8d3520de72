"""What the end-to-end tests share: starting servers so that nothing outlives a test, talking HTTP, waiting for conditions.

Every process started here carries a marker in its environment, and so do its descendants; whatever still carries it after a test
is an orphan. Settings: ACCRETE_BIN (the binary), ACCRETE_TEST_MODEL (a real model; without it the tests skip).
"""
import contextlib
import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("ACCRETE_BIN", str(ROOT / "build" / "release" / "bin" / "accrete"))
MODEL = os.environ.get("ACCRETE_TEST_MODEL", "")
MARKER = "ACCRETE_E2E_MARKER"
SMALL = ["--max-model-len", "1024", "--max-num-seqs", "64", "--kv-cache-memory-bytes", "64MiB"]
START_SECONDS = 50  # a hang, not a slow machine
SKIPPED = 77        # ctest's SKIP_RETURN_CODE


def free_ports(count):
    """Ports that nobody listens on: all held at once while they are chosen, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def wait_for(condition, seconds, what):
    """The condition's first true value; fails when `seconds` pass without one."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def environment_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def state_of(pid):
    """The process's state letter, Z for a zombie, empty when it is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def command_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


class Job:
    """A program of the test with its log; ended with everything it started when the test leaves its `with`."""

    def __init__(self, command, extra_env=None):
        self.marker = uuid.uuid4().hex
        self.command = [str(part) for part in command]
        self.log = tempfile.NamedTemporaryFile("w+", prefix="accrete-e2e-", suffix=".log", delete=False)
        environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        environment.update(extra_env or {})
        environment[MARKER] = self.marker
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, env=environment,
                                        start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for pid in self.alive():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if kind is not None and kind is not unittest.SkipTest:
            sys.stderr.write(f"--- {' '.join(self.command)}\n{self.output()[-6000:]}\n---\n")
        self.log.close()
        os.unlink(self.log.name)

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def alive(self):
        """Ids of all processes that descend from this job, zombies left out."""
        wanted = f"{MARKER}={self.marker}".encode()
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
        return [pid for pid in pids if wanted in environment_of(pid) and state_of(pid) not in ("", "Z", "X")]

    def workers(self):
        """Ids of the ranks: `accrete worker` processes, mpirun itself left out."""
        return sorted(pid for pid in self.alive() if command_of(pid)[1:2] == ["worker"])

    def exit_code(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command[:2]} still runs after {seconds} s") from None

    def expect_gone(self, seconds, what="processes of the job"):
        wait_for(lambda: not self.alive(), seconds, f"{what} gone (alive: {[command_of(p)[:3] for p in self.alive()]})")


class Server(Job):
    """A job that serves HTTP on `port`."""

    def __init__(self, command, port, rpc_port=0, extra_env=None):
        super().__init__(command, extra_env)
        self.port, self.rpc_port = port, rpc_port

    def request(self, method, path, body=None, timeout=60):
        """(status, parsed JSON or text)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = "json" in (answer.getheader("Content-Type") or "")
            return answer.status, json.loads(text) if is_json else text
        finally:
            connection.close()

    def healthy(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/health", timeout=5)[0] == 200
        return False

    def wait_healthy(self, seconds=START_SECONDS):
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with exit code {self.process.returncode} before it was ready")
            return self.healthy()
        wait_for(ready, seconds, "/health answers 200")
        return self

    def complete(self, prompt, max_tokens, **fields):
        status, answer = self.request("POST", "/v1/completions", dict(prompt=prompt, max_tokens=max_tokens, temperature=0, **fields))
        if status != 200:
            raise AssertionError(f"/v1/completions answered {status}: {answer}")
        return answer

    def stream(self, prompt, max_tokens, **fields):
        """An open connection whose answer streams, for tests that interrupt it: (connection, response)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = dict(prompt=prompt, max_tokens=max_tokens, temperature=0, stream=True, **fields)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def cluster(self):
        status, answer = self.request("GET", "/v1/cluster")
        if status != 200:
            raise AssertionError(f"/v1/cluster answered {status}: {answer}")
        return answer

    def pages_free(self):
        """{(replica, rank): free pages}"""
        return {(replica["id"], rank["rank"]): int(rank["pages_free"])
                for replica in self.cluster()["replicas"] for rank in replica["report"]["ranks"]}


def events_of(response):
    """The payloads of a stream's data lines, [DONE] included, until it ends."""
    for line in response:
        line = line.decode().strip()
        if line.startswith("data:"):
            yield line[5:].strip()


def need_model():
    if not MODEL:
        print("skipped: ACCRETE_TEST_MODEL names no model")
        sys.exit(SKIPPED)


def serve(*flags, extra_env=None):
    """`accrete serve` on free ports."""
    port, rpc_port = free_ports(2)
    command = [BINARY, "serve", MODEL, "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port, *SMALL, *flags]
    return Server(command, port, rpc_port, extra_env)


def mpirun(ranks, *command):
    return ["mpirun", "-np", ranks, "--oversubscribe", "--bind-to", "none", "--mca", "btl", "vader,self",
            "--mca", "btl_vader_single_copy_mechanism", "none", *command]


def run(*arguments, timeout=60, extra_env=None):
    """`accrete ...` to its end: (exit code, stdout, stderr)."""
    environment = dict(os.environ, **(extra_env or {}))
    done = subprocess.run([BINARY, *[str(a) for a in arguments]], capture_output=True, text=True, timeout=timeout, env=environment,
                          stdin=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout, done.stderr


def main():
    """Runs the calling script's tests; without a model they skip."""
    need_model()
    unittest.main(verbosity=2)
