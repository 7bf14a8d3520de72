#!/usr/bin/env python3
"""One mpirun line is a complete server; a coordinator and two replicas that join it are another."""
import signal
import unittest

import support


class OneLiner(unittest.TestCase):
    def test_mpirun_worker_serves(self):
        port, rpc_port = support.free_ports(2)
        command = support.mpirun("2", support.BINARY, "worker", support.MODEL, "-tp", "2", "--host", "127.0.0.1", "--port", port,
                                 "--rpc-port", rpc_port, *support.SMALL)
        with support.Server(command, port, rpc_port) as server:
            server.wait_healthy()
            self.assertEqual(len(server.workers()), 2)
            answer = server.complete("The capital of France is", 8)
            self.assertIn("Paris", answer["choices"][0]["text"])
            self.assertEqual(answer["usage"]["completion_tokens"], 8)
            server.process.send_signal(signal.SIGTERM)
            server.exit_code(20)
            server.expect_gone(5)

    def test_single_process(self):
        port, rpc_port = support.free_ports(2)
        command = [support.BINARY, "worker", support.MODEL, "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port, *support.SMALL]
        with support.Server(command, port, rpc_port) as server:
            server.wait_healthy()
            server.complete("Hello", 2)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.exit_code(20), 0)

    def test_coordinator_and_two_replicas(self):
        port, rpc_port = support.free_ports(2)
        command = [support.BINARY, "coordinator", "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port]
        worker = [support.BINARY, "worker", support.MODEL, "--coordinator", f"127.0.0.1:{rpc_port}", "--cpu-threads", "1", *support.SMALL]
        with support.Server(command, port, rpc_port) as server:
            support.wait_for(lambda: self.status(server) == 503, 10, "/health answers 503 while there is no replica")
            with support.Job(worker) as first, support.Job(worker) as second:
                server.wait_healthy()
                support.wait_for(lambda: self.replicas_up(server) == 2, 30, "two replicas are up")
                server.complete("Hello", 2)
                first.process.send_signal(signal.SIGKILL)
                support.wait_for(lambda: self.replicas_up(server) == 1, 10, "the lost replica is noticed")
                server.complete("Hello again", 2)
                second.process.send_signal(signal.SIGTERM)
                self.assertEqual(second.exit_code(20), 0)
            support.wait_for(lambda: not server.healthy(), 10, "/health answers 503 again")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(server.exit_code(15), 0)

    @staticmethod
    def status(server):
        try:
            return server.request("GET", "/health", timeout=5)[0]
        except OSError:
            return 0

    @staticmethod
    def replicas_up(server):
        return sum(replica["state"] == "up" for replica in server.cluster()["replicas"])


if __name__ == "__main__":
    support.main()
