#!/usr/bin/env python3
"""accrete bench serve against a running server, over both of its protocols, with its three kinds of report."""
import json
import pathlib
import tempfile
import unittest

import support


class BenchServe(unittest.TestCase):
    def bench(self, server, folder, backend, *flags):
        result, page = pathlib.Path(folder) / "result.json", pathlib.Path(folder) / "report.html"
        code, text, errors = support.run(
            "bench", "serve", "--backend", backend, "--host", "127.0.0.1", "--port", server.port, "--rpc-port", server.rpc_port,
            "--input-len", "12", "--output-len", "6", "--percentile-metrics", "ttft,tpot,itl,e2el", "--output-json", result,
            "--report", page, *flags)
        self.assertEqual(code, 0, errors)
        return json.loads(result.read_text()), text, page.read_text()

    def test_both_backends(self):
        with support.serve("--dmc-synthetic-cr", "2") as server, tempfile.TemporaryDirectory() as folder:
            server.wait_healthy()
            for backend in ("openai", "rpc"):
                with self.subTest(backend):
                    figures, text, page = self.bench(server, folder, backend, "--num-prompts", "6", "--max-concurrency", "3")
                    self.assertEqual((figures["completed"], figures["failed"]), (6, 0))
                    self.assertEqual((figures["total_input_tokens"], figures["total_output_tokens"]), (72, 36))
                    self.assertGreater(figures["mean_ttft_ms"], 0)
                    self.assertIn("============ Serving Benchmark Result ============", text)
                    self.assertIn("P99 E2EL (ms):", text)
                    self.assertIn("synthetic decisions", text)
                    self.assertIn("<svg", page)

    def test_rate_and_dataset(self):
        with support.serve() as server, tempfile.TemporaryDirectory() as folder:
            server.wait_healthy()
            data = pathlib.Path(folder) / "talk.json"
            data.write_text(json.dumps([{"conversations": [{"from": "human", "value": "Name a colour."}, {"from": "gpt", "value": "Blue it is."}]}]))
            figures, _, _ = self.bench(server, folder, "openai", "--num-prompts", "3", "--request-rate", "20", "--dataset", "sharegpt-json",
                                       "--dataset-path", data)
            self.assertEqual(figures["completed"], 3)
            self.assertEqual(figures["request_rate"], 20)


if __name__ == "__main__":
    support.main()
