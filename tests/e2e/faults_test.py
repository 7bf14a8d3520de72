#!/usr/bin/env python3
"""Things that die: a rank during decode, the coordinator, the serve process itself. Clients get an error, nobody is left behind."""
import json
import os
import signal
import threading
import unittest

import support


class LongAnswer(threading.Thread):
    """A streamed request that would run for long, followed on a thread of its own."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.connection, self.response = server.stream("Count to a thousand: one, two,", 900, ignore_eos=True)
        self.events = []
        self.broken = ""
        self.start()

    def run(self):
        try:
            self.events.extend(support.events_of(self.response))
        except OSError as error:
            self.broken = str(error)
        self.connection.close()

    def error(self):
        """The error object of the stream's last events, if any."""
        for event in self.events[-2:]:
            if event != "[DONE]" and "error" in json.loads(event):
                return json.loads(event)["error"]
        return None


class Faults(unittest.TestCase):
    def test_killed_rank(self):
        with support.serve("-tp", "2") as server:
            server.wait_healthy()
            answer = LongAnswer(server)
            support.wait_for(lambda: len(answer.events) > 3, 20, "tokens stream")
            os.kill(server.workers()[1], signal.SIGKILL)
            answer.join(10)
            self.assertFalse(answer.is_alive(), "the client still waits 10 s after a rank died")
            self.assertTrue(answer.error() or answer.broken, f"the stream ended as if all were well: {answer.events[-3:]}")
            self.assertIsNotNone(answer.error(), f"the connection broke instead of telling an error: {answer.broken}")
            self.assertEqual(server.exit_code(10), 1)
            server.expect_gone(5)

    def test_killed_coordinator(self):
        port, rpc_port = support.free_ports(2)
        command = [support.BINARY, "coordinator", "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port]
        worker = support.mpirun("2", support.BINARY, "worker", support.MODEL, "-tp", "2", "--coordinator", f"127.0.0.1:{rpc_port}", *support.SMALL)
        with support.Server(command, port, rpc_port) as server, support.Job(worker) as job:
            server.wait_healthy()
            self.assertEqual(len(job.workers()), 2)
            server.process.send_signal(signal.SIGKILL)
            # They may try to reach it again for 10 s, then they stop.
            self.assertEqual(job.exit_code(22), 1)
            job.expect_gone(2)

    def test_killed_serve_leaves_nobody(self):
        with support.serve("-tp", "2") as server:
            server.wait_healthy()
            server.process.send_signal(signal.SIGKILL)
            server.exit_code(5)
            server.expect_gone(10)

    def test_drain_on_sigterm(self):
        with support.serve("-tp", "2") as server:
            server.wait_healthy()
            connection, response = server.stream("One, two, three,", 40, ignore_eos=True)
            events = support.events_of(response)
            first = next(events)
            server.process.send_signal(signal.SIGTERM)
            rest = list(events)
            connection.close()
            self.assertIn("choices", first)
            self.assertEqual(rest[-1], "[DONE]", "the open request was not finished first")
            self.assertEqual(server.exit_code(20), 0)
            server.expect_gone(5)


if __name__ == "__main__":
    support.main()
