#!/usr/bin/env python3
"""What a retrofit saved, in the engine: an adapter and a full directory give PyTorch's perplexity and compression, layer by layer,
read in one pass and token by token. ACCRETE_BIN names the program."""
import json
import math
import os
import pathlib
import subprocess
import tempfile
import unittest

import with_torch

if __name__ == "__main__":
    with_torch.main_needs_torch(__file__)

import torch  # noqa: E402
from retrofit import baselines, data, export, model_files, schedule, student, weights  # noqa: E402

BINARY = os.environ.get("ACCRETE_BIN", str(with_torch.ROOT / "build" / "release" / "bin" / "accrete"))
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, " * 2
ENGINE = ["--device", "cpu", "--cpu-threads", "1", "--kv-cache-dtype", "float32", "--kv-cache-memory-bytes", "16MiB"]


class Engine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = with_torch.tiny_model(cls.folder / "base")
        (cls.folder / "text.txt").write_text(TEXT)

    def hard_path(self, made):
        """PyTorch, all tokens at once under the full mask, decisions as inference makes them -> perplexity, CR by layer, alpha by head"""
        tokens = torch.tensor([list(TEXT.encode("ascii"))])
        starts = torch.zeros_like(tokens, dtype=torch.bool)
        starts[:, 0] = True
        batch = student.Batch(tokens, starts, data.targets_of(tokens, starts))
        with torch.no_grad():
            result = with_torch.network(self.model).forward(batch, weights.Leaves(made), schedule.Moment(3, 0.0, 4.0, 0.0, 0.0), hard=True)
        merged = result.hard
        self.assertTrue(0.1 < merged.mean().item() < 0.9)
        self.assertGreater(len(set(merged.flatten().tolist())), 2, "heads differ")
        return math.exp(result.means[1].item()), (1 / (1 - merged.mean(1))).tolist()

    def engine(self, *model, dtype="float32"):
        out = self.folder / "figures.json"
        command = [BINARY, "eval", "perplexity", *map(str, model), "--text", str(self.folder / "text.txt"), "--output-json", str(out), "--dtype", dtype, *ENGINE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(out.read_text())

    def compare(self, made, *model):
        perplexity, by_layer = self.hard_path(made)
        for step in (512, 7, 1):  # tokens of an iteration: one pass, pieces, token by token
            with self.subTest(model=model, step=step):
                got = self.engine(*model, "--max-num-batched-tokens", str(step), "--max-num-seqs", "1")
                self.assertEqual(got["tokens"], len(TEXT) - 1)
                self.assertAlmostEqual(got["perplexity"] / perplexity, 1.0, delta=1e-4)
                for layer, ratio in enumerate(got["compression_ratio_by_layer"]):
                    self.assertAlmostEqual(ratio, by_layer[layer], places=4, msg=f"layer {layer}: the same number of slots")

    def test_adapter(self):
        made = with_torch.decided_weights(self.model, 4)
        export.save_adapter(made, self.folder / "adapter", export.dmc_block(4.0, 12, 5.0), "base")
        self.compare(made, self.model, "--adapter", self.folder / "adapter")

    def test_rounded_weights(self):
        """The engine's default, bf16 weights: the same perplexity and slots but for what rounding moves."""
        made = with_torch.decided_weights(self.model, 4)
        export.save_adapter(made, self.folder / "rounded", export.dmc_block(4.0, 12, 5.0), "base")
        perplexity, by_layer = self.hard_path(made)
        got = self.engine(self.model, "--adapter", self.folder / "rounded", dtype="bfloat16")
        self.assertAlmostEqual(got["perplexity"] / perplexity, 1.0, delta=0.02)
        for ratio, wanted in zip(got["compression_ratio_by_layer"], by_layer):
            self.assertAlmostEqual(ratio / wanted, 1.0, delta=0.05)

    def test_reading_it_back(self):
        """retrofit.baselines --dmc measures what was trained: the engine's perplexity once more, from an adapter and from a directory."""
        tokens = torch.tensor([list(TEXT.encode("ascii"))])
        for rank in (4, 0):
            made, folder = with_torch.decided_weights(self.model, rank), self.folder / f"back{rank}"
            if rank:
                export.save_adapter(made, folder, export.dmc_block(4.0, 12, 5.0), "base")
            else:
                export.save_model(made, model_files.open_checkpoint(self.model), folder, export.dmc_block(4.0, 12, 5.0))
            loss, ratio = baselines.retrofitted(self.model, folder, tokens)
            perplexity, by_layer = self.hard_path(made)
            self.assertAlmostEqual(math.exp(loss) / perplexity, 1.0, delta=1e-5)
            self.assertAlmostEqual(1 / ratio, sum(1 / layer for layer in by_layer) / len(by_layer), places=6)
        with self.assertRaisesRegex(model_files.ModelFileError, "no dmc block"):
            baselines.retrofitted(self.model, self.model, tokens)

    def test_full_directory(self):
        made = with_torch.decided_weights(self.model, 0)
        export.save_model(made, model_files.open_checkpoint(self.model), self.folder / "full", export.dmc_block(4.0, 12, 5.0))
        self.compare(made, self.folder / "full")

    def test_the_command(self):
        """accrete retrofit runs the package and hands its exit codes on."""
        run = lambda *flags, **env: subprocess.run([BINARY, "retrofit", *map(str, flags)], capture_output=True, text=True, check=False,
                                                   env={**os.environ, "ACCRETE_PYTHON": with_torch.sys.executable, "OMP_NUM_THREADS": "1", **env})
        tokens = with_torch.token_file(self.folder / "t.bin", TEXT)
        flags = [self.model, "--data", tokens, "--output", self.folder / "run", "--rows", "1", "--length", "32"]
        done = run(*flags, "--steps", "2", "--lora_rank=2")
        self.assertEqual((done.returncode, "written to" in done.stdout), (0, True), done.stderr)
        self.engine(self.model, "--adapter", self.folder / "run" / "model")
        for more, code, said in ((["--steps", "2", "--colour"], 2, "--colour"), (["--steps", "2", "--data", self.folder / "none"], 1, "no such token file")):
            done = run(*flags, *more)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(said, done.stderr)
            self.assertIn("accrete retrofit: error: ", done.stderr)
        self.assertIn("--target-cr", run("--help").stdout)
        done = run(*flags, ACCRETE_PYTHON="no-such-python")
        self.assertEqual((done.returncode, "no-such-python" in done.stderr), (1, True), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
