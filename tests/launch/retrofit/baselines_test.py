#!/usr/bin/env python3
"""The baselines without training: no query sees more entries than its budget, what left stays away, and full is the usual Llama."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import with_torch

if __name__ == "__main__":
    with_torch.main_needs_torch(__file__)

import torch  # noqa: E402
from retrofit import baselines, data, schedule, student, weights  # noqa: E402

TEXT = "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do. " * 5


class Policies(unittest.TestCase):
    def seen(self, policy, budget, ratio):
        """[heads, T, T] bool"""
        if policy != "heavy-hitters":
            return baselines.fixed_mask(policy, budget, ratio).unsqueeze(0)
        scores = torch.randn(2, 6, len(budget), len(budget), generator=torch.Generator().manual_seed(0))
        return (baselines.attend_heavy_hitters(scores, 3, budget) > 0).flatten(0, 1)

    def test_budgets(self):
        for ratio in (1.0, 2.0, 2.5, 4.0):
            for fixed in (False, True):
                budget = baselines.budgets(90, ratio, fixed)
                self.assertEqual(budget[-1].item(), -(-90 // ratio))
                for policy in baselines.POLICIES[1:]:
                    with self.subTest(policy, ratio=ratio, fixed=fixed):
                        seen = self.seen(policy, budget, ratio)
                        wanted = torch.minimum(budget, torch.arange(1, 91)).expand(seen.shape[:2])
                        self.assertTrue(torch.equal(seen.sum(-1), wanted), "the whole budget and no more")
                        self.assertFalse(seen.triu(1).any().item(), "nothing ahead")
                        self.assertTrue(seen.diagonal(dim1=1, dim2=2).all().item(), "its own token")

    def test_what_is_kept(self):
        budget = baselines.budgets(64, 4.0)
        row = lambda policy: baselines.fixed_mask(policy, budget, 4.0)[-1].nonzero().flatten().tolist()
        self.assertEqual(row("window"), list(range(48, 64)))
        self.assertEqual(row("sinks"), [*range(4), *range(52, 64)])
        self.assertEqual(row("every"), [*range(24, 56, 4), *range(56, 64)])

    def test_heavy_hitters(self):
        """A token that all later ones look at stays, and what left never comes back."""
        scores = torch.zeros(1, 1, 60, 60)
        scores[..., 5] = 9.0
        kept = baselines.attend_heavy_hitters(scores, 1, baselines.budgets(60, 4.0, fixed=True))[0, 0] > 0
        first = int(kept[:, 5].nonzero()[0])
        self.assertEqual(first, 5)
        self.assertTrue(kept[5:, 5].all().item())
        gone = (~kept).float().cumsum(0) - (~torch.ones(60, 60, dtype=torch.bool).tril()).float().cumsum(0)
        self.assertFalse((kept & (gone > 0)).any().item())


class Program(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = with_torch.tiny_model(cls.folder / "model")
        cls.tokens = with_torch.token_file(cls.folder / "t.bin", TEXT)

    def test_full_is_the_model(self):
        windows = baselines.windows_of(data.read_tokens(str(self.tokens)), 64, 3)
        network = with_torch.network(self.model)
        reader = baselines.Reader(baselines.model_files.open_checkpoint(self.model))
        got = reader.loss(windows, reader.probabilities("full", baselines.budgets(64, 1.0), 1.0))
        starts = torch.zeros_like(windows, dtype=torch.bool)
        starts[:, 0] = True
        made = with_torch.decided_weights(self.model, 4)
        with torch.no_grad():
            result = network.forward(student.Batch(windows, starts, data.targets_of(windows, starts)), weights.Leaves(made), schedule.Moment(1, 1.0, 1.0, 0.0, 0.0))
        self.assertAlmostEqual(got, result.means[2].item(), places=4)

    def test_program(self):
        out = self.folder / "rows.json"
        command = [sys.executable, "-B", "-m", "retrofit.baselines", str(self.model), f"tiny={self.tokens}", "--length", "64", "--windows", "2", "--cr", "2", "--cr", "4",
                   "--output-json", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=with_torch.ROOT / "launch")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(json.loads(out.read_text())), 1 + 4 * 2)
        done = subprocess.run([*command, "--windows", "1000"], capture_output=True, text=True, check=False, cwd=with_torch.ROOT / "launch")
        self.assertEqual((done.returncode, "lower --length or --windows" in done.stderr), (1, True), done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
