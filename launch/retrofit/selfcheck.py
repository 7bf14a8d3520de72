"""Compares the compiled layer and loss with plain PyTorch on this machine's device: python3 -m retrofit.selfcheck [flex|flash]

Both compute in float32 products of the same bfloat16 weights where they can; what is printed are relative differences of the
output and of every gradient. Ends with 1 when one is larger than bfloat16 explains.
"""
import sys
import time

import torch

from retrofit import attention, dmc, llama, student

LIMIT = 0.05


def case(device, dtype):
    """A layer of the default model's shape, two rows with three documents each."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape, scale=1.0: (torch.randn(*shape, generator=generator) * scale).to(device, dtype)
    hidden, inner, head, kv = 576, 1536, 64, 3
    shapes = [(hidden, hidden), (kv * head, hidden), (kv * head, hidden), (hidden, hidden), (inner, hidden), (inner, hidden), (hidden, inner)]
    weights = [draw(*s, scale=s[1] ** -0.5) for s in shapes] + [torch.ones(hidden, device=device, dtype=dtype)] * 2
    weights[1][head - 1::head] *= 6  # decisions of both kinds
    starts = torch.zeros(2, 512, dtype=torch.bool)
    starts[:, [0, 100, 300]] = True
    starts = starts.to(device)
    return draw(2, 512, hidden), weights, starts, logistic(generator, (2, 512, kv), device)


def logistic(generator, shape, device):
    return dmc.logistic_noise(shape, "cpu", generator).to(device)


class Plain:
    head_size, rope_theta, rope_scaling = 64, 1e5, None


def gradients(layer, mask_type, given, hard):
    h, weights, starts, noise = given
    number = lambda x: torch.tensor(float(x), device=h.device)
    leaves = [t.detach().clone().requires_grad_() for t in (h, *weights)]
    turn = llama.angles(Plain, attention.positions_of(starts))
    controls = llama.Controls(number(0), number(1), number(hard))
    shape = llama.Shape(64, 1e-5, 12, 3.0)
    out, decided = layer(leaves[0], llama.LayerWeights(*leaves[1:]), (turn, noise, starts, controls), mask_type(starts), shape)
    probe = torch.linspace(-1, 1, out.numel(), device=h.device).view_as(out)
    ((out.float() * probe).sum() + decided.accumulate.sum() * 100).backward()
    return [out.detach(), decided.accumulate.detach(), *(leaf.grad for leaf in leaves)]


def compare(got, want):
    worst = 0.0
    for name, a, b in zip(["output", "alpha", "h", *llama.LayerWeights._fields], got, want):
        difference = ((a.float() - b.float()).norm() / b.float().norm()).item()
        worst = max(worst, difference if difference == difference else float("inf"))
        print(f"  {name:10} {difference:.1e}")
    return worst


def main():
    device = student.device_of("auto")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    given, begin = case(device, dtype), time.monotonic()
    compiled = torch.compile(llama.dmc_layer, dynamic=False) if device.type == "cuda" else llama.dmc_layer
    mask = student.mask_type(sys.argv[1] if len(sys.argv) > 1 else "flex" if device.type == "cuda" else "full")
    worst = 0.0
    for hard in (False, True):
        print(f"{'decided' if hard else 'relaxed'}, {device.type}, {torch.__version__}")
        worst = max(worst, compare(gradients(compiled, mask, given, hard), gradients(llama.dmc_layer, attention.FullMask, given, hard)))
    print(f"largest relative difference {worst:.1e} in {time.monotonic() - begin:.0f} s")
    return 0 if worst < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
