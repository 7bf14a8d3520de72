#!/usr/bin/env python3
"""The mathematics of a retrofit in float64 without PyTorch: against the golden files, and where hard and relaxed decisions meet.

Also what of the package needs no PyTorch: the schedule, the clock, the plots, the flags.
"""
import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

import reference

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = pathlib.Path(os.environ.get("ACCRETE_GOLDEN_DIR", ROOT / "tests" / "golden")) / "dmc"
TOLERANCE = 2e-5
sys.path.insert(0, str(ROOT / "launch"))
from retrofit import plots, schedule  # noqa: E402


def largest(a, b):
    if isinstance(a, (int, float)):
        return abs(a - b)
    return max(map(largest, a, b), default=0.0)


def heads_of(path):
    """-> for each batch row and KV head: q, k, v, wanted {name: [T][...]}, window, theta"""
    tensors, meta = reference.read_safetensors(path)
    count, group = int(meta["kv_heads"]), int(meta["query_heads"]) // int(meta["kv_heads"])
    for batch in range(int(meta["batch"])):
        for head in range(count):
            mine = range(head * group, (head + 1) * group)
            grouped = lambda name: [list(x) for x in zip(*(reference.rows(tensors[name], batch, g) for g in mine))]
            wanted = {name: reference.rows(tensors[name], batch, head) for name in ("pooled_k", "pooled_v")}
            wanted.update({name: grouped(name) for name in ("attn_out", "attn_out_decode") if name in tensors})
            if "slot" in tensors:
                (tokens, batches, heads), values = tensors["slot"]
                wanted["slot"] = [values[(t * batches + batch) * heads + head] for t in range(tokens)]
            yield (grouped("q"), *(reference.rows(tensors[name], batch, head) for name in "kv"), wanted, int(meta["window"]), float(meta["rope_theta"]))


class Golden(unittest.TestCase):
    def test_pooling_decisions_and_attention(self):
        files = sorted(GOLDEN.glob("*.safetensors"))
        self.assertTrue(files)
        for path in files:
            merged = []
            for number, (q, k, v, wanted, window, theta) in enumerate(heads_of(path)):
                with self.subTest(path.name, head=number):
                    alpha = reference.hard_decisions(k)
                    kbar, vbar = reference.pool(k, v, reference.importance(q), alpha, window)
                    self.assertLess(largest(kbar, wanted["pooled_k"]), TOLERANCE)
                    self.assertLess(largest(vbar, wanted["pooled_v"]), TOLERANCE)
                    self.assertLess(largest(reference.attend(q, kbar, vbar, alpha, theta), wanted["attn_out"]), TOLERANCE)
                    out, slot = reference.decode(q, kbar, vbar, alpha, theta)
                    self.assertLess(largest(out, wanted.get("attn_out_decode", wanted["attn_out"])), TOLERANCE)
                    self.assertEqual(slot, wanted.get("slot", slot))
                    merged.append(sum(alpha) / len(alpha))
            self.assertGreater(len(set(merged)), 1, "heads differ")


class Relaxed(unittest.TestCase):
    """Random heads with logits on both sides of 0, none nearer than 0.05."""

    def setUp(self):
        self.rng = random.Random(3)
        row = lambda width: [self.rng.gauss(0, 1) for _ in range(width)]
        self.q, self.v = [[row(8) for _ in range(3)] for _ in range(40)], [row(8) for _ in range(40)]
        self.k = [[*row(7), reference.OFFSET + self.rng.choice((-1, 1)) * self.rng.uniform(0.05, 2)] for _ in range(40)]
        self.w = reference.importance(self.q)

    def output(self, alpha, window=12):
        kbar, vbar = reference.pool(self.k, self.v, self.w, alpha, window)
        return [kbar, vbar, reference.attend(self.q, kbar, vbar, alpha, 1e4)]

    def test_temperature_to_zero_is_the_hard_mode(self):
        hard, before = self.output(reference.hard_decisions(self.k)), None
        for temperature in (0.1, 0.02, 0.005, 0.001):
            alpha = reference.relaxed_decisions(self.k, [0.0] * 40, temperature)
            distance = max(largest(a, b) for a, b in zip(self.output(alpha), hard))
            self.assertTrue(before is None or distance < before, temperature)
            before = distance
        self.assertLess(before, 1e-9)

    def test_hard_mode_is_the_cache(self):
        alpha = reference.hard_decisions(self.k)
        kbar, vbar, out = self.output(alpha)
        self.assertLess(largest(out, reference.decode(self.q, kbar, vbar, alpha, 1e4)[0]), 1e-12)

    def test_window(self):
        ones = [0.0] + [1.0] * 39
        kbar, vbar = reference.pool(self.k, self.v, self.w, ones, 12)
        newest = range(28, 40)
        mean = [sum(self.w[j] * self.v[j][d] for j in newest) / sum(self.w[j] for j in newest) for d in range(8)]
        self.assertLess(largest(vbar[39], mean), 1e-12)
        self.assertGreater(largest(vbar[39], reference.pool(self.k, self.v, self.w, ones, 0)[1][39]), 1e-3)
        self.assertEqual(kbar[39][-1], 0.0)

    def test_importance_is_the_mean_of_the_group(self):
        q = [[[0.0, 2.0], [0.0, -8.0], [0.0, -3.0]]]
        self.assertAlmostEqual(reference.importance(q)[0], reference.sigmoid(-3.0 + 5.0) + 2 ** -7, places=15)

    def test_noise_decides_by_chance(self):
        """P(logit + g1 - g2 > 0) = sigmoid(logit), also where the package draws one logistic number for both."""
        uniform = [self.rng.random() for _ in range(20000)]
        noise = [math.log(u) - math.log1p(-u) for u in uniform]
        for logit in (-2.0, 0.0, 1.0):
            share = sum(logit + g > 0 for g in noise) / len(noise)
            self.assertAlmostEqual(share, reference.sigmoid(logit), delta=0.015)

    def test_the_loss_is_one_sided(self):
        self.assertEqual(reference.shortfall([1.0, 0.0, 0.5, 0.5], 2.0), 0.0)
        self.assertEqual(reference.shortfall([1.0, 1.0, 1.0, 0.0], 2.0), 0.0)
        self.assertAlmostEqual(reference.shortfall([0.25, 0.25], 4.0), 0.5)
        self.assertEqual(reference.shortfall([0.0], 1.0), 0.0)


class Schedule(unittest.TestCase):
    def test_the_three_stages(self):
        plan = schedule.Plan(target_cr=4.0, zero_share=0.1, grow_share=0.5, lr=1e-3, warmup=0.0, final_lr_share=0.1, quiet_share=0.5, hard_share=0.25)
        at = lambda u: schedule.moment(plan, u)
        self.assertEqual([at(u).stage for u in (0, 0.05, 0.0999, 0.1, 0.3, 0.5999, 0.6, 1)], [1, 1, 1, 2, 2, 2, 3, 3])
        self.assertEqual([round(at(u).keep, 9) for u in (0, 0.04, 0.08, 0.09, 0.2)], [1, 0.5, 0, 0, 0])
        self.assertEqual([round(at(u).cr, 9) for u in (0.1, 0.35, 0.6, 1)], [1, 2.5, 4, 4])
        self.assertEqual([round(at(u).lr, 9) for u in (0.3, 0.6, 0.8, 1)], [1e-3, 1e-3, 5.5e-4, 1e-4])
        self.assertEqual([round(at(u).noise, 9) for u in (0.5, 0.6, 0.7, 0.8, 0.99)], [1, 1, 0.5, 0, 0])
        self.assertEqual([at(u).hard for u in (0.05, 0.5, 0.85, 0.91, 1)], [False, False, False, True, True])

    def test_the_clock_goes_on(self):
        clock = schedule.Clock(minutes=1.0)
        clock.begin(100.0, 90.0)    # ten seconds were compiling
        clock.advance(125.0)
        self.assertEqual(clock.share(), 0.5)
        again = schedule.Clock(minutes=1.0)
        again.seek(json.loads(json.dumps(clock.state())))
        again.begin(1000.0, 950.0)  # compiled anew: the run keeps its share
        again.advance(1025.0)
        self.assertEqual((again.share(), again.step), (1.0, 2))


class Surroundings(unittest.TestCase):
    def test_plots(self):
        with tempfile.TemporaryDirectory() as folder:
            log = pathlib.Path(folder) / "log.jsonl"
            step = {"event": "step", "kl": 0.1, "target_cr": 2.0, "cr": 1.9, "hard_cr": 1.8}
            held = {"event": "evaluation", "name": "held-out", "kl": 0.2, "perplexity": 20.0, "teacher_perplexity": 18.0, "cr": 1.7, "by_head": [[0.5, 0.0], [0.75, 0.2]]}
            log.write_text("\n".join(json.dumps({**event, "step": i}) for i in range(5) for event in (step, held)) + '\n{"event": "st')  # a killed run's last line
            plots.write(log, folder)
            texts = {p.name: p.read_text() for p in pathlib.Path(folder).glob("*.svg")}
            self.assertEqual(sorted(texts), ["compression.svg", "heads.svg", "loss.svg", "perplexity.svg"])
            for text in texts.values():
                xml.etree.ElementTree.fromstring(text)
            self.assertIn(">4.0</text>", texts["heads.svg"])

    def run_package(self, *arguments):
        done = subprocess.run([sys.executable, "-B", str(ROOT / "launch" / "retrofit"), *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def test_bad_flags(self):
        given = ["model", "--data", "x.bin", "--output", "out"]
        for flags, said in ((["--steps", "1", "--target-cr", "0.5"], "--target-cr"), (["--steps", "1", "--minutes", "1"], "--minutes"), ([], "--steps"),
                            (["--steps", "1", "--target-cr", "nan"], "--target-cr"), (["--steps", "-3"], "--steps"), (["--steps", "1", "--colour"], "--colour"),
                            (["--steps", "1", "--lm-share", "1.5"], "--lm-share"), (["--steps", "1", "--length", "2"], "--length"),
                            (["--steps", "1", "--rows", "0"], "--rows"), (["--steps", "1", "--zero-share", "0.7"], "--zero-share"),
                            (["--steps", "1", "--branch-cr", "9"], "--branch-cr"), (["--steps", "1", "--attention", "none"], "--attention")):
            with self.subTest(flags):
                code, _, errors = self.run_package(*given, *flags)
                self.assertEqual((code, len(errors.splitlines())), (2, 1), errors)
                self.assertIn("accrete retrofit: error: ", errors)
                self.assertIn(said, errors)

    def test_help_and_missing_packages(self):
        code, text, _ = self.run_package("--help")
        self.assertEqual(code, 0)
        self.assertIn("--target-cr", text)
        with tempfile.TemporaryDirectory() as folder:  # a torch that cannot be imported, wherever this runs
            (pathlib.Path(folder) / "torch.py").write_text("raise ImportError('No module named torch')")
            done = subprocess.run([sys.executable, "-B", str(ROOT / "launch" / "retrofit"), "m", "--data", "x", "--output", folder + "/o", "--steps", "1"],
                                  capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": folder})
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
        for said in ("No module named torch", "PyTorch 2.6", "ACCRETE_PYTHON"):
            self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
