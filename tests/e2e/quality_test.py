#!/usr/bin/env python3
"""retrofit.quality on a real model: the unmodified one beside forced decisions; figures that can be counted by hand, chats, bad input by name."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import support

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
DOCUMENTS = ["The lighthouse keeper counted ships, and every ship he counted he wrote into a book. " * 12, "Rain fell on the town for a week. " * 20]


class Quality(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.text = self.folder / "held-out.jsonl"
        self.text.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))

    def quality(self, *flags):
        return subprocess.run([sys.executable, "-B", "-m", "retrofit.quality", str(support.MODEL), "--output", str(self.folder / "out"), *map(str, flags)],
                              cwd=LAUNCH, capture_output=True, text=True, env=dict(os.environ, ACCRETE_BIN=str(support.BINARY)), timeout=170)

    def test_forced_decisions_beside_the_model(self):
        prompts = self.folder / "prompts.txt"
        prompts.write_text("What is the capital of France?\n")
        done = self.quality("--variant", "forced=--dmc-synthetic-cr 4", "--text", f"held-out={self.text}", "--chats", prompts, "--chat-tokens", 12,
                            "--pool-pages", 900, "--max-model-len", 512)
        self.assertEqual(done.returncode, 0, done.stderr)
        variants = json.loads((self.folder / "out" / "quality.json").read_text())["variants"]
        plain, forced = (variants[name]["texts"]["held-out"] for name in ("unmodified", "forced"))
        self.assertEqual(plain["compression_ratio"], 1)
        self.assertGreater(forced["compression_ratio"], 3)
        self.assertGreater(forced["perplexity"], plain["perplexity"])
        self.assertEqual(variants["unmodified"]["tokens_until_full"], 160, "90 heads of 10 pages of 16 slots")
        self.assertGreater(variants["forced"]["tokens_until_full"], 3 * 160)
        self.assertIn("Paris", (self.folder / "out" / "chats.md").read_text())
        self.assertIn(f"| unmodified | {plain['perplexity']:.3f} |", done.stdout)

    def test_bad_input(self):
        self.assertIn("--text a=/nowhere: no such file", self.quality("--text", "a=/nowhere").stderr)
        self.text.write_text("{}\n")
        self.assertIn("line 1", self.quality("--text", f"held-out={self.text}").stderr)
        self.text.write_text(json.dumps({"text": DOCUMENTS[0]}))
        done = self.quality("--text", f"held-out={self.text}", "--variant", "wrong=--adapter /nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nowhere", done.stderr)


if __name__ == "__main__":
    support.need_model()
    support.main()
