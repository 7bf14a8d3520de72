#!/usr/bin/env python3
"""Forced decisions at CR 4 against none: fewer slots, pages and bytes, told the same way by usage, the cluster page and inspect."""
import json
import pathlib
import tempfile
import unittest

import support

TEXT = "The lighthouse keeper counted ships, and every ship he counted he wrote into a book. " * 24


def inspect(*flags):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "inspect.json"
        code, _, errors = support.run("inspect", support.MODEL, "--prompt", TEXT, "--output-json", path, *support.SMALL, *flags)
        if code != 0:
            raise AssertionError(errors)
        return json.loads(path.read_text())["caches"]


class Compression(unittest.TestCase):
    def test_inspect(self):
        plain, forced = inspect(), inspect("--dmc-synthetic-cr", "4")
        self.assertEqual(set(plain["slots"]), {plain["tokens"]}, "without compression every head holds every token")
        ratio = forced["tokens"] * len(forced["slots"]) / sum(forced["slots"])
        self.assertGreater(ratio, 3.0)
        self.assertLess(ratio, 5.0)
        self.assertGreater(len(set(forced["slots"])), 5, "heads should differ")
        self.assertLess(forced["bytes_reported"], 0.5 * plain["bytes_reported"])
        self.assertTrue(plain["agrees"] and forced["agrees"])
        self.assertEqual(forced["synthetic_cr"], 4)

    def test_inspect_of_shards(self):
        one, cut = inspect("--dmc-synthetic-cr", "4"), inspect("--dmc-synthetic-cr", "4", "-tp", "2", "-pp", "2")
        shared = min(one["tokens"], cut["tokens"])
        self.assertGreater(shared, 300)
        self.assertTrue(cut["agrees"])

    def test_served(self):
        with support.serve("--dmc-synthetic-cr", "4") as server:
            server.wait_healthy()
            usage = server.complete(TEXT, 8, ignore_eos=True)["usage"]
            self.assertGreater(usage["compression_ratio"], 3.0)
            self.assertLess(usage["kv_slots"], usage["prompt_tokens"] / 3)
            self.assertEqual(server.cluster()["models"][0]["dmc"]["synthetic_cr"], 4)


if __name__ == "__main__":
    support.main()
