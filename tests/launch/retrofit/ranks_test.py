#!/usr/bin/env python3
"""Two processes under torchrun (gloo) give the run that one gives: figures, parameters, files; going on with another number of them."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import with_torch

if __name__ == "__main__":
    with_torch.main_needs_torch(__file__)

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse. " * 6
SMALL = ["--rows", "2", "--length", "48", "--log-steps", "1", "--eval-batches", "1", "--pieces", "2", "--target-cr", "3", "--save-seconds", "1000"]
PACKAGE = with_torch.ROOT / "launch" / "retrofit"
LR, ROW_LR, HOLD_ROWS = 1e-3, 3e-3, (".rows", "q_proj", "k_proj")
FIGURES = ("kl", "lm", "cr", "hard_cr", "norm", "target_cr", "tokens", "stage")


def one_sided():
    """Alpha is above what is asked for on one rank, below on the other, and enough over both: nothing pulls at either. Then below on both."""
    from retrofit import loss, ranks, student
    group = ranks.Ranks(cuda=False)
    targets = torch.tensor([[1, 2, loss.IGNORED], [loss.IGNORED, 1, loss.IGNORED]][group.rank])
    alpha = torch.tensor([[0.9, 0.7], [0.3, 0.2]][group.rank], requires_grad=True)
    means = torch.tensor([[1.0, 2.0, 3.0], [2.0, 5.0, 6.0]][group.rank])
    result = group.joined(student.Result(alpha.sum() * 0, means, alpha, torch.tensor([1.0, 0.0]) * group.rank), targets)
    assert torch.allclose(result.means, torch.tensor([1.5, 3.0, 4.0])), result.means  # cross entropy by predicted tokens, two and one
    assert torch.allclose(result.accumulate, torch.tensor([0.6, 0.45])) and torch.equal(result.hard, torch.tensor([0.5, 0.0])), result
    for cr, gradient in ((2.0, 0.0), (2.5, -0.5)):
        alpha.grad = None
        loss.shortfall(result.accumulate, cr).backward(retain_graph=True)
        group.average([alpha])
        assert torch.equal(alpha.grad, torch.full((2,), gradient)), (cr, alpha.grad)
    assert group.any(group.rank == 1) and not group.any(False) and group.lead([0.1 + group.rank]) == [0.1]
    group.end()


def parts():
    """What a rank holds under FSDP, before and after a step: half of everything, and no layer left gathered."""
    from retrofit import model_files, ranks, schedule, sharded, student
    group, checkpoint = ranks.Ranks(cuda=False), model_files.open_checkpoint(sys.argv[2])
    options = {"attention": "full", "window": 12, "offset": 5.0, "mix": 0.0, "pieces": 2, "compiled": False, "teacher": True, "ranks": group}
    network = sharded.Network(checkpoint, options, torch.device("cpu"), torch.float32)
    weights = sharded.Weights(network, group.first)
    starts = torch.zeros(1, 16, dtype=torch.bool)
    starts[:, 0] = True
    tokens = torch.arange(16).unsqueeze(0) + group.rank
    for step in range(2):
        for module in (network.model, network.teacher_layers):
            held, whole = (sum(numbers) for numbers in zip(*((p.to_local().numel(), p.numel()) for p in module.parameters())))
            assert 2 * held == whole, (step, held, whole)
        result = network.forward(student.Batch(tokens, starts, tokens), weights.leaves(), schedule.Moment(2, 0.0, 2.0, 1e-3, 1.0))
        result.loss.backward()
        assert all(p.grad.to_local().shape == p.to_local().shape for p in weights.parameters.values())
    group.end()


class Ranks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = with_torch.tiny_model(cls.shared / "model")
        cls.data = with_torch.token_file(cls.shared / "train.bin", TEXT)

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def command(self, processes, *program):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else ["-B"]
        return [sys.executable, *launcher, *map(str, program)]

    def package(self, processes, output, *flags):
        return self.command(processes, PACKAGE, self.model, "--data", self.data, "--output", self.folder / output, *SMALL, *flags)

    def done(self, command):
        """-> exit code, what was said on both streams"""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=environment, timeout=300)
        return run.returncode, run.stdout

    def train(self, processes, output, *flags):
        code, said = self.done(self.package(processes, output, *flags))
        self.assertEqual(code, 0, said)
        self.assertEqual(said.count("written to"), 1, said)

    def events(self, kind, output):
        path = self.folder / output / "log.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if event["event"] == kind]

    def same_runs(self, one, two):
        """The log's figures, the checkpoint with optimizer and place in the data."""
        for kind in ("step", "evaluation"):
            a, b = self.events(kind, one), self.events(kind, two)
            self.assertEqual([event["step"] for event in a], [event["step"] for event in b])
            for x, y in zip(a, b):
                for name in FIGURES:
                    if name in x:
                        self.assertAlmostEqual(x[name], y[name], delta=1e-4 * max(1, abs(x[name])), msg=f"{kind} {x['step']} {name}")
        a, b = (torch.load(self.folder / name / "checkpoint.pt", weights_only=True) for name in (one, two))
        for name in ("data", "stage", "branched", "tokens"):
            self.assertEqual(a[name], b[name], name)
        self.close(a["parameters"], b["parameters"])
        self.assertEqual(a["optimizer"]["param_groups"], b["optimizer"]["param_groups"])
        for key, state in a["optimizer"]["state"].items():
            for name, tensor in state.items():
                self.close({name: tensor}, {name: b["optimizer"]["state"][key][name]}, lambda _: 1e-3 * tensor.abs().max().item())

    @staticmethod
    def rounding(name):
        """Adam divides a gradient by its size, so what differs by rounding enters as a share of the rate: 1 % of the parameter's own."""
        return 0.01 * (ROW_LR if any(part in name for part in HOLD_ROWS) else LR)

    def close(self, a, b, limit=rounding):
        self.assertEqual(a.keys(), b.keys())
        for name, tensor in a.items():
            self.assertEqual((tensor.shape, tensor.dtype, b[name].device), (b[name].shape, b[name].dtype, tensor.device), name)
            self.assertLessEqual((tensor - b[name]).abs().max().item(), limit(name), name)

    def test_one_sided_loss(self):
        code, said = self.done(self.command(2, __file__, "one-sided"))
        self.assertEqual(code, 0, said)

    def test_parts(self):
        code, said = self.done(self.command(2, __file__, "parts", self.model))
        self.assertEqual(code, 0, said)

    def test_adapter(self):
        self.whole_run("adapter_model.safetensors", "--lora-rank", 4)

    def test_all_weights(self):
        """FSDP, also from a snapshot and without a teacher."""
        self.whole_run("model.safetensors")
        for processes, output in ((1, "from one"), (2, "from two")):
            self.train(processes, output, "--steps", 3, "--from", self.folder / "1-1" / "snapshot-cr2.pt", "--loss", "lm", "--micro-batches", 1)
        self.same_runs("from one", "from two")

    def whole_run(self, model, *flags):
        """Four steps, with a snapshot, by as many processes as the first number says; then to the tenth by the second."""
        parameters = lambda output, name: torch.load(self.folder / output / name, weights_only=True)["parameters"]
        for order in ((1, 1), (2, 1), (1, 2)):
            output = "{}-{}".format(*order)
            for processes, steps in zip(order, (4, 10)):
                self.train(processes, output, "--steps", steps, "--eval-data", self.data, "--branch-cr", 2, *flags)
            self.assertEqual([event["resumed"] for event in self.events("begin", output)], [False, True])
            self.assertEqual(len(self.events("step", output)), 10)
            self.same_runs("1-1", output)
            self.close(*(load_file(self.folder / name / "model" / model) for name in ("1-1", output)))
            self.close(*(parameters(name, "snapshot-cr2.pt") for name in ("1-1", output)))

    def children(self, job):
        found = pathlib.Path(f"/proc/{job.pid}/task/{job.pid}/children")
        return [int(pid) for pid in found.read_text().split()] if found.is_file() else []

    def test_sigterm_on_any_rank(self):
        """One process is told to stop, the last or the first; both save and end."""
        for which, rank in ((-1, 2), (0, 0)):
            with self.subTest(which):
                output = f"stop{which}"
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                job = subprocess.Popen(self.package(2, output, "--steps", 100000, "--lora-rank", rank), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                       text=True, env=environment)
                try:
                    end = time.monotonic() + 120
                    while len(self.events("step", output)) < 3 and job.poll() is None and time.monotonic() < end:
                        time.sleep(0.02)
                    workers = self.children(job)
                    if len(workers) != 2:
                        self.skipTest("this system does not list a process's children")
                    os.kill(workers[which], signal.SIGTERM)
                    errors = job.communicate(timeout=60)[1]
                finally:
                    job.terminate()
                    job.wait()
                self.assertEqual(job.returncode, 0, errors)
                saved = torch.load(self.folder / output / "checkpoint.pt", weights_only=True)
                self.assertEqual(saved["clock"]["step"], self.events("step", output)[-1]["step"])

    def test_refusals(self):
        """Each is told once, however many processes meet it."""
        output = self.folder / "refused"
        output.mkdir()
        (output / "checkpoint.pt").write_bytes(b"damaged")
        for said, flags in (("--rows 3: must be a multiple of the 2 processes", ["--rows", 3]), ("no such token file", ["--data", "none-*.bin"]),
                            ("checkpoint.pt: cannot be read", []), ("checkpoint.pt: cannot be read", ["--lora-rank", 0])):
            code, text = self.done(self.package(2, "refused", "--steps", 2, "--lora-rank", 2, *flags))
            lines = [line for line in text.splitlines() if "accrete retrofit: error: " in line]
            self.assertEqual((code, len(lines)), (1, 1), text)
            self.assertIn(said, lines[0])
            self.assertNotIn("in train_with", text)
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}
        run = subprocess.run(self.package(1, "alone", "--steps", 2), capture_output=True, text=True, check=False, env={**environment, "WORLD_SIZE": "2"})
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertIn("WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set; start it by torchrun", run.stderr)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one-sided"]:
        one_sided()
    elif sys.argv[1:2] == ["parts"]:
        parts()
    else:
        unittest.main(verbosity=2)
