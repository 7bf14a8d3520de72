#!/usr/bin/env python3
"""Whole runs of the package on a tiny model: a run to its end, SIGKILL at any moment and going on, a snapshot, bad input."""
import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

import with_torch

if __name__ == "__main__":
    with_torch.main_needs_torch(__file__)

import torch  # noqa: E402
from retrofit import __main__ as retrofit_main  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse. " * 6
SMALL = ["--rows", "2", "--length", "64", "--micro-batches", "1", "--log-steps", "1", "--eval-batches", "1", "--pieces", "2"]
PACKAGE = with_torch.ROOT / "launch" / "retrofit"


class Runs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = with_torch.tiny_model(cls.shared / "model")
        cls.data = with_torch.token_file(cls.shared / "train.bin", TEXT)

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def command(self, *flags, output="out", model=None, data=None):
        return [sys.executable, "-B", str(PACKAGE), str(model or self.model), "--data", str(data or self.data), "--output", str(self.folder / output),
                *SMALL, *map(str, flags)]

    def run_package(self, *flags, **places):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(self.command(*flags, **places), capture_output=True, text=True, check=False, env=environment)
        return done.returncode, done.stdout, done.stderr

    def events(self, kind, output="out"):
        path = self.folder / output / "log.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                self.assertIs(line, lines[-1], "only the last line may be cut short while it is written")
        return [event for event in found if event["event"] == kind]

    def test_a_run_and_its_snapshot(self):
        code, text, errors = self.run_package("--steps", 20, "--lora-rank", 4, "--eval-data", self.data, "--eval-data", f"other={self.data}",
                                              "--branch-cr", 2, "--target-cr", 3)
        self.assertEqual(code, 0, errors)
        self.assertIn("held-out: perplexity", text)
        self.assertIn("other: perplexity", text)
        found = self.events("evaluation")
        self.assertEqual({event["name"] for event in found}, {"held-out", "other"})
        for event in found[-2:]:
            self.assertAlmostEqual(event["kl"], event["relaxed_kl"], delta=0.5 * event["kl"])
        self.assertEqual([event["now"] for event in self.events("stage")], [2, 3])
        steps = self.events("step")
        self.assertEqual(len(steps), 20)
        self.assertEqual((steps[0]["target_cr"], steps[-1]["target_cr"]), (1.0, 3.0))
        for name in ("loss.svg", "perplexity.svg", "compression.svg", "heads.svg", "checkpoint.pt", "snapshot-cr2.pt", "model/adapter_model.safetensors",
                     "snapshot-cr2/adapter_config.json", "snapshot-cr1/adapter_config.json"):
            self.assertTrue((self.folder / "out" / name).is_file(), name)
        config = json.loads((self.folder / "out" / "model" / "adapter_config.json").read_text())
        self.assertEqual(config["dmc"], {"target_cr": 3.0, "window": 12, "offset": 5.0})
        code, _, errors = self.run_here("--steps", 3, "--lora-rank", 4, "--target-cr", 2, "--from", self.folder / "out" / "snapshot-cr2.pt", output="second")
        self.assertEqual(code, 0, errors)
        self.assertEqual({event["stage"] for event in self.events("step", "second")}, {3})
        before, after = (load_file(self.folder / name / "adapter_model.safetensors") for name in ("out/snapshot-cr2", "second/model"))
        self.assertEqual(before.keys(), after.keys())
        self.same_from_an_adapter()

    def same_from_an_adapter(self):
        """A snapshot and the adapter written beside it begin the same run."""
        steps = []
        for name in ("snapshot-cr2.pt", "snapshot-cr2"):
            code, _, errors = self.run_here("--steps", 2, "--lora-rank", 4, "--target-cr", 2, "--lr", "1e-9", "--row-lr", "1e-9",
                                            "--from", self.folder / "out" / name, output=f"from {name}")
            self.assertEqual(code, 0, errors)
            steps.append(self.events("step", f"from {name}"))
        for one, two in zip(*steps):
            for figure in ("kl", "lm", "cr", "hard_cr"):
                self.assertAlmostEqual(one[figure], two[figure], delta=1e-4 * max(1, abs(one[figure])))
        self.expect("no adapter of a retrofit", "--from", self.model, output="new")

    def test_the_last_steps_decide_hard_in_turn(self):
        from retrofit.student import Network
        forward, hard = Network.forward, []

        def spied(network, batch, leaves, moment, decides_hard=False):
            hard.append(bool(decides_hard))
            return forward(network, batch, leaves, moment, decides_hard)

        with mock.patch.object(Network, "forward", spied):
            code, _, errors = self.run_here("--steps", 40, "--lora-rank", 2, "--zero-share", 0.1, "--grow-share", 0.4)
        self.assertEqual(code, 0, errors)
        # Stage 3 is steps 20 to 39; its last fifth, from share 0.9 of the run on, begins with step 36.
        self.assertEqual([step for step, is_hard in enumerate(hard) if is_hard], [36, 38])

    def test_all_weights(self):
        code, _, errors = self.run_here("--steps", 6, "--loss", "lm")
        self.assertEqual(code, 0, errors)
        config = json.loads((self.folder / "out" / "model" / "config.json").read_text())
        self.assertEqual(config["dmc"]["target_cr"], 4.0)
        before, after = load_file(self.model / "model.safetensors"), load_file(self.folder / "out" / "model" / "model.safetensors")
        self.assertEqual({name: t.shape for name, t in before.items()}, {name: t.shape for name, t in after.items()})
        self.assertTrue((self.folder / "out" / "model" / "tokenizer.json").is_file())

    def kill_after(self, steps, flags):
        """Starts a run, SIGKILL after so many of its steps -> the last step that its log had."""
        begun = len(self.events("step"))
        with open(self.folder / "errors", "w") as errors:
            job = subprocess.Popen(self.command(*flags), stdout=subprocess.DEVNULL, stderr=errors, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            end = time.monotonic() + 120
            while len(self.events("step")) < begun + steps:
                self.assertIsNone(job.poll(), (self.folder / "errors").read_text())
                self.assertLess(time.monotonic(), end, "no steps")
                time.sleep(0.003)
        finally:
            job.send_signal(signal.SIGKILL)
            job.wait()
        return self.events("step")[-1]["step"]

    def test_kill_and_go_on(self):
        """Saved after every step, a run loses at most the step it was in."""
        flags, reached = ["--steps", 60, "--lora-rank", 2, "--save-seconds", 0], []
        for steps in (6, 17, 9):
            reached.append(self.kill_after(steps, flags))
        code, _, errors = self.run_package(*flags)
        self.assertEqual(code, 0, errors)
        begins = self.events("begin")
        self.assertEqual([event["resumed"] for event in begins], [False, True, True, True])
        for last, event in zip(reached, begins[1:]):
            self.assertIn(event["step"], (last - 1, last, last + 1))
        numbers = [event["step"] for event in self.events("step")]
        self.assertEqual(sorted(set(numbers)), list(range(1, 61)))
        self.assertLessEqual(len(numbers), 60 + 3)
        self.assertTrue((self.folder / "out" / "model" / "adapter_model.safetensors").is_file())

    def test_sigterm_saves(self):
        job = subprocess.Popen(self.command("--steps", 100000, "--lora-rank", 2), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + 120
            while len(self.events("step")) < 3 and job.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            job.send_signal(signal.SIGTERM)
            errors = job.communicate(timeout=60)[1]
        finally:
            job.kill()
            job.wait()
        self.assertEqual(job.returncode, 0, errors)
        saved = torch.load(self.folder / "out" / "checkpoint.pt", weights_only=True)
        self.assertEqual(saved["clock"]["step"], self.events("step")[-1]["step"])

    def run_here(self, *flags, **places):
        """The same in this process, which has PyTorch loaded already."""
        argv = self.command(*flags, **places)[2:]
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()), \
                mock.patch.object(signal, "signal"):
            code = retrofit_main.main()
        return code, "", errors.getvalue()

    def expect(self, said, *flags, **places):
        code, _, errors = self.run_here("--steps", 2, "--lora-rank", 2, *flags, **places)
        lines = [line for line in errors.splitlines() if line.startswith("accrete retrofit: error: ")]
        self.assertEqual((code, len(lines)), (1, 1), errors)
        self.assertNotIn("Traceback", errors)
        self.assertIn(said, lines[0])

    def test_bad_input(self):
        bad = self.folder / "bad.bin"
        self.expect("no such token file", data=self.folder / "none-*.bin")
        bad.write_bytes(b"\1\0\2")
        self.expect("3 bytes", data=bad)
        bad.write_bytes(b"\1\0" * 20)
        self.expect("no documents", data=bad)
        (self.folder / "bad.txt").write_text(TEXT)
        self.expect("bad.txt: text, and no token file", data=self.folder / "bad.txt")
        self.expect("two of the same name", "--eval-data", self.data, "--eval-data", self.data)
        bad.write_bytes(b"\1\2" * 20 + b"\xff\xff")
        self.expect("outside the model's vocabulary of 256", data=bad)
        self.expect("share", data=f"{self.data}=much")
        (self.folder / "bad.bin.xz").write_bytes(b"no archive")
        self.expect("bad.bin.xz", data=self.folder / "bad.bin.xz")
        self.expect("no such model", model=self.folder / "nowhere")
        self.expect("nor a GGUF", model=self.data)
        (self.folder / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
        self.expect("bad.gguf: cannot be read", model=self.folder / "bad.gguf")
        (self.folder / "half").mkdir()
        self.expect("no config.json", model=self.folder / "half")
        (self.folder / "half" / "config.json").write_text((self.model / "config.json").read_text())
        self.expect("no model*.safetensors", model=self.folder / "half")
        whole = (self.model / "model.safetensors").read_bytes()
        (self.folder / "half" / "model.safetensors").write_bytes(whole[:len(whole) // 2])
        self.expect("half: cannot be read", model=self.folder / "half")
        (self.folder / "half" / "model.safetensors").write_bytes(whole)
        fields = json.loads((self.model / "config.json").read_text())
        (self.folder / "half" / "config.json").write_text(json.dumps({**fields, "attention_bias": True}))
        self.expect("attention_bias", model=self.folder / "half")
        (self.folder / "half" / "config.json").write_text(json.dumps({**fields, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}))
        self.expect("rope_type is yarn", model=self.folder / "half")

    def test_bad_checkpoints(self):
        code, _, errors = self.run_here("--steps", 2, "--lora-rank", 2)
        self.assertEqual(code, 0, errors)
        path = self.folder / "out" / "checkpoint.pt"
        whole = path.read_bytes()
        for damaged in (b"", whole[:len(whole) // 2], b"\x80\x02" + bytes(500)):
            path.write_bytes(damaged)
            self.expect("checkpoint.pt: cannot be read")
        path.write_bytes(whole)
        self.expect("of another model or --lora-rank", "--lora-rank", 3)
        self.expect("of a run with other --data", "--data", self.data)
        self.expect("no such file", "--from", self.folder / "gone.pt", output="new")


if __name__ == "__main__":
    unittest.main(verbosity=2)
