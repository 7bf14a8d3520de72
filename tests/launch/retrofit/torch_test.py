#!/usr/bin/env python3
"""The package's tensors against the golden files, against plain Python in relaxed mode, and gradients against numeric ones in float64."""
import os
import pathlib
import tempfile
import unittest
from unittest import mock

import with_torch

if __name__ == "__main__":
    with_torch.main_needs_torch(__file__)

import reference  # noqa: E402
import torch  # noqa: E402
from retrofit import attention, data, dmc, llama, loss, schedule, student, weights  # noqa: E402
from safetensors import safe_open  # noqa: E402

GOLDEN = pathlib.Path(os.environ.get("ACCRETE_GOLDEN_DIR", with_torch.ROOT / "tests" / "golden")) / "dmc"
MOMENTS = [schedule.Moment(1, 0.5, 1.0, 1e-3, 1.0), schedule.Moment(2, 0.0, 2.0, 1e-3, 1.0), schedule.Moment(3, 0.0, 4.0, 1e-3, 0.5)]


class Shape:
    def __init__(self, head_size, theta):
        self.head_size, self.rope_theta, self.rope_scaling = head_size, theta, None


def attend(q, k, v, x, given):
    """q [B, T, Hq, D], k, v [B, T, Hkv, D], decisions x -> pooled [B, T, Hkv, 2 D], out [B, Hq, T, D]; given = (starts, window, theta)"""
    starts, window, theta = given
    size = q.shape[-1]
    bare = torch.cat([k[..., :-1], torch.zeros_like(k[..., :1])], -1)
    pooled = dmc.window_pool(torch.cat([bare, v], -1), dmc.importance(q, k.shape[2]), torch.sigmoid(x), window)
    turn, x_next = llama.angles(Shape(size, theta), attention.positions_of(starts)), dmc.next_decision(x)
    query = dmc.rotate(q, *turn, 0.0, dmc.QUERY_MARK).transpose(1, 2)
    unmarked = dmc.rotate(pooled[..., :size], *turn, 0.0, 0.0)
    key = unmarked.clone()
    key[..., -1] = dmc.key_mark(x_next, size)
    extra = llama.own_scores(query, unmarked.transpose(1, 2)) + dmc.missing_weight(x_next.transpose(1, 2), query.shape[1])
    return pooled, attention.FullMask(starts).merged(query, key.transpose(1, 2), pooled[..., size:].transpose(1, 2), extra)


class Golden(unittest.TestCase):
    def test_hard_mode(self):
        for path in sorted(GOLDEN.glob("*.safetensors")):
            with self.subTest(path.name), safe_open(path, "pt") as file:
                t, meta = {name: file.get_tensor(name).transpose(0, 1) for name in file.keys()}, file.metadata()
                q, k, v = t["q"], t["k"], t["v"]
                starts = torch.zeros(q.shape[:2], dtype=torch.bool)
                starts[:, 0] = True
                x = dmc.decisions(k[..., -1] - dmc.OFFSET, starts, torch.zeros(1), torch.tensor(1.0))
                pooled, out = attend(q, k, v, x, (starts, int(meta["window"]), float(meta["rope_theta"])))
                for name, got in (("pooled_k", pooled[..., :k.shape[-1]]), ("pooled_v", pooled[..., k.shape[-1]:]), ("attn_out", out.transpose(1, 2)),
                                  ("attn_out_decode", out.transpose(1, 2))):
                    if name in t:
                        self.assertLess((got - t[name]).abs().max().item(), 2e-5, name)


class Relaxed(unittest.TestCase):
    def test_equals_plain_python(self):
        """Two documents in a row of 30 tokens; each must come out as when it stands alone."""
        generator = torch.Generator().manual_seed(5)
        draw = lambda *shape: torch.randn(*shape, generator=generator)
        q, k, v, noise = draw(1, 30, 6, 8), draw(1, 30, 2, 8), draw(1, 30, 2, 8), dmc.logistic_noise((1, 30, 2), "cpu", generator) * 0.2
        k[..., -1] = dmc.OFFSET + 0.1 * k[..., -1]
        starts = torch.zeros(1, 30, dtype=torch.bool)
        starts[0, [0, 11]] = True
        x = dmc.decisions(k[..., -1] - dmc.OFFSET, starts, noise, torch.tensor(0.0))
        self.assertGreater(((torch.sigmoid(x) > 0.1) & (torch.sigmoid(x) < 0.9)).sum().item(), 10, "decisions in between")
        pooled, out = attend(q, k, v, x, (starts, 5, 1e4))
        for head in range(2):
            for begin, end in ((0, 11), (11, 30)):
                part = lambda tensor: tensor[0, begin:end].tolist()
                one_q, one_k, one_v = part(q[:, :, head * 3:head * 3 + 3]), part(k[:, :, head]), part(v[:, :, head])
                alpha = reference.relaxed_decisions(one_k, part(noise[:, :, head]), dmc.TEMPERATURE)
                kbar, vbar = reference.pool(one_k, one_v, reference.importance(one_q), alpha, 5)
                wanted = reference.attend(one_q, kbar, vbar, alpha, 1e4)
                self.assertLess((pooled[0, begin:end, head] - torch.cat([torch.tensor(kbar), torch.tensor(vbar)], -1)).abs().max().item(), 2e-5)
                got = out[0, head * 3:head * 3 + 3, begin:end].transpose(0, 1)
                self.assertLess((got - torch.tensor(wanted)).abs().max().item(), 2e-5)

    def test_gradients_are_the_numeric_ones(self):
        """The whole layer in float64; its casts to float32 are taken out for that."""
        generator = torch.Generator().manual_seed(2)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
        hidden, head, tokens = 6, 4, 7
        w = [draw(4 * head, hidden), draw(2 * head, hidden), draw(2 * head, hidden), draw(hidden, 4 * head) * 0.3, draw(5, hidden), draw(5, hidden),
             draw(hidden, 5), torch.ones(hidden, dtype=torch.float64), torch.ones(hidden, dtype=torch.float64)]
        starts = torch.zeros(1, tokens, dtype=torch.bool)
        starts[0, [0, 4]] = True
        noise = draw(1, tokens, 2) * 0.05
        w[1][head - 1::head] *= 0.05  # logits near the offset chosen below, so that decisions are in between
        shape = llama.Shape(head, 1e-5, 3, 0.0)
        number = lambda value: torch.tensor(value, dtype=torch.float64)
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            turn = llama.angles(Shape(head, 100.0), attention.positions_of(starts))
            mask = attention.FullMask(starts)
            for keep, gate in ((0.0, 1.0), (0.6, 0.0)):
                def run(h, *given, controls=llama.Controls(number(keep), number(gate), number(0.0))):
                    out, decided = llama.dmc_layer(h, llama.LayerWeights(*given), (turn, noise, starts, controls), mask, shape)
                    return out, decided.accumulate
                leaves = [t.clone().requires_grad_() for t in (draw(1, tokens, hidden), *w)]
                self.assertTrue(torch.autograd.gradcheck(run, leaves, eps=1e-7, atol=1e-5, rtol=1e-4))

    def test_loss_gradients(self):
        """What VocabularyLoss makes piece by piece, against autograd on the formulas."""
        generator = torch.Generator().manual_seed(4)
        h, output, known = (torch.randn(*shape, generator=generator) for shape in ((9, 5), (12, 5), (9, 5)))
        targets = torch.tensor([0, 3, 11, loss.IGNORED, 2, 5, loss.IGNORED, 7, 1])
        for mix in (0.0, 0.3, 1.0):
            a, b = ([t.clone().requires_grad_() for t in (h, output)] for _ in range(2))
            value, means = loss.VocabularyLoss.apply(*a, {"teacher": (known, output), "targets": targets, "mix": mix, "pieces": 2, "function": loss.piece_gradients})
            value.backward()
            logits, wanted = (b[0] @ b[1].t()).log_softmax(-1), (known @ output.t()).log_softmax(-1)
            kl = (wanted.exp() * (wanted - logits)).sum(-1).mean()
            lm = torch.nn.functional.nll_loss(logits, targets, ignore_index=loss.IGNORED, reduction="sum")
            # the package divides gradients of both by all tokens, and reports cross entropy by predicted ones
            ((1 - mix) * kl + mix * lm / len(h)).backward()
            self.assertAlmostEqual(means[0].item(), kl.item(), places=5)
            self.assertAlmostEqual(means[1].item(), lm.item() / 7, places=5)
            for x, y in zip(a, b):
                self.assertLess((x.grad - y.grad).abs().max().item(), 1e-5, mix)

    def test_shortfall(self):
        self.assertEqual(loss.shortfall(torch.tensor([1.0, 0.0, 0.9]), 2.0).item(), 0.0)
        self.assertAlmostEqual(loss.shortfall(torch.tensor([[0.25, 0.25]]), 4.0).item(), reference.shortfall([0.25, 0.25], 4.0), places=6)


def sequences(ends):
    bounds = ends.tolist()
    return [(a, b) for a, b in zip(bounds[:-1], bounds[1:]) if a != b]


def flash_forward(q, k, v, ends, *_, **__):
    """What aten's flash kernel returns, on the CPU: out and the log of each row's sum."""
    out, lse, group = torch.empty_like(q), torch.empty(q.shape[1], q.shape[0]), q.shape[1] // k.shape[1]
    for a, b in sequences(ends):
        keys, values = (x[a:b].repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
        scores = q[a:b].transpose(0, 1) @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(torch.ones(b - a, b - a).triu(1).bool(), float("-inf"))
        lse[:, a:b] = scores.logsumexp(-1)
        out[a:b] = (scores.softmax(-1) @ values).transpose(0, 1)
    return out, lse, torch.zeros(2, dtype=torch.uint64), torch.zeros((), dtype=torch.uint64), torch.empty(0)


def flash_backward(*given, **_):
    """Its backward: P from lse, dS = P (dP - rowsum(dO O))."""
    grad, q, k, v, out, lse, ends = given[:7]
    dq, dk, dv, group, scale = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v), q.shape[1] // k.shape[1], q.shape[-1] ** -0.5
    for a, b in sequences(ends):
        queries, keys, values = (x[a:b].transpose(0, 1) for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
        o, g = out[a:b].transpose(0, 1), grad[a:b].transpose(0, 1)
        p = torch.exp(queries @ keys.transpose(-1, -2) * scale - lse[:, a:b, None]).tril()
        ds = p * (g @ values.transpose(-1, -2) - (g * o).sum(-1, keepdim=True))
        dq[a:b] = (ds @ keys * scale).transpose(0, 1)
        dk[a:b] = (ds.transpose(-1, -2) @ queries * scale).transpose(0, 1).unflatten(1, (-1, group)).sum(2)
        dv[a:b] = (p.transpose(-1, -2) @ g).transpose(0, 1).unflatten(1, (-1, group)).sum(2)
    return dq, dk, dv


class OtherPaths(unittest.TestCase):
    """--attention flash with its kernels stood in for, plain and compiled, gives the gradients of full masks."""

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = with_torch.tiny_model(cls.folder / "model")
        cls.weights = with_torch.decided_weights(cls.model, 4)
        cls.library = torch.library.Library("aten", "IMPL")
        cls.library.impl("_flash_attention_forward", flash_forward, "CPU")
        cls.library.impl("_flash_attention_backward", flash_backward, "CPU")
        text = "The quick brown fox jumps over the lazy dog; sphinx of black quartz, judge my vow. " * 8
        cls.batch = student.Batch(*data.Mixture([data.parse_source("--data", str(with_torch.token_file(cls.folder / "t.bin", text)), 256)], 0).batch(2, 96))

    def gradients(self, network, moment):
        leaves = weights.Leaves(self.weights)
        torch.manual_seed(7)
        result = network.forward(self.batch, leaves, moment)
        (result.loss + loss.shortfall(result.accumulate, 4.0)).backward()
        leaves.backward()
        found = {name: p.grad.clone() for name, p in self.weights.parameters.items()}
        for parameter in self.weights.parameters.values():
            parameter.grad = None
        return result, found

    def test_gradients(self):
        full, flash = with_torch.network(self.model), with_torch.network(self.model, attention="flash")
        compiled = with_torch.network(self.model, attention="flash")
        wrap = lambda f: torch.compile(f, backend="aot_eager", dynamic=False, fullgraph=True)
        compiled.student_layer, compiled.teacher_layer, compiled.piece = wrap(llama.dmc_layer), wrap(llama.plain_layer), wrap(loss.piece_gradients)
        for moment in MOMENTS:
            wanted, want = self.gradients(full, moment)
            for network in (flash, compiled):
                with self.subTest(stage=moment.stage, compiled=network is compiled):
                    result, got = self.gradients(network, moment)
                    self.assertAlmostEqual(result.loss.item(), wanted.loss.item(), places=4)
                    for name, gradient in want.items():
                        self.assertLess((got[name] - gradient).abs().max().item(), 1e-3 * gradient.abs().max().item() + 1e-7, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
