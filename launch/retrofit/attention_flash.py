"""The attention of attention.py over the flash kernels that PyTorch ships, documents as sequences of various lengths.

Their forward also gives each row's log sum, but no gradient flows through it. It need not: a flash backward recomputes
P = exp(S - lse) and dS = P (dP - rowsum(dO O)) from the lse and O it is handed. Handed those of the merged softmax, with the
diagonal's missing weight inside, it computes the merged softmax's gradients; what is left is the extra entry's own, below.
"""
import torch

SMALLEST_TABLE = 512


def flat(x):
    """[B, H, T, D] -> [B * T, H, D]"""
    return x.transpose(1, 2).flatten(0, 1)


def split(x, rows):
    return x.unflatten(0, (rows, -1)).transpose(1, 2)


@torch.library.custom_op("retrofit::merged_flash", mutates_args=())
def merged_flash(qkv: list[torch.Tensor], extra: torch.Tensor, ends: torch.Tensor, longest: int) -> list[torch.Tensor]:
    """qkv: q [N, Hq, D], k, v [N, Hkv, D], extra [N, Hq] (an added score for the token's own value), ends [S + 1] -> out, lse [N, Hq]"""
    q, k, v = qkv
    out, lse = torch.ops.aten._flash_attention_forward(q, k, v, ends, ends, longest, longest, 0.0, True, False)[:2]
    if lse.shape != (q.shape[1], q.shape[0]):
        raise RuntimeError(f"this PyTorch's flash attention gives row sums of shape {list(lse.shape)}; use --attention flex")
    lse = lse.t()
    merged = torch.logaddexp(lse, extra)
    share = torch.exp(extra - merged).unsqueeze(-1)
    own = v.repeat_interleave(q.shape[1] // v.shape[1], 1)
    return [(out.float() + share * (own.float() - out.float())).to(q.dtype), merged.contiguous()]


@merged_flash.register_fake
def _(qkv, extra, ends, longest):
    return [torch.empty_like(qkv[0]), torch.empty_like(extra)]


@torch.library.custom_op("retrofit::merged_flash_backward", mutates_args=())
def merged_flash_backward(grad: torch.Tensor, kept: list[torch.Tensor], longest: int) -> list[torch.Tensor]:
    q, k, v, extra, ends, out, lse = kept
    grad = grad.contiguous()
    seed, unused = (torch.zeros(n, dtype=torch.uint64, device=q.device) for n in ((2,), ()))  # of dropout, which there is none of
    dq, dk, dv = torch.ops.aten._flash_attention_backward(
        grad, q, k, v, out, lse.t().contiguous(), ends, ends, longest, longest, 0.0, True, seed, unused)
    share, group = torch.exp(extra - lse), q.shape[1] // v.shape[1]
    toward = (grad.float() * (v.repeat_interleave(group, 1).float() - out.float())).sum(-1)
    dv = dv.float() + (share.unsqueeze(-1) * grad.float()).unflatten(1, (-1, group)).sum(2)
    return [dq, dk, dv.to(v.dtype), share * toward]


@merged_flash_backward.register_fake
def _(grad, kept, longest):
    return [torch.empty_like(t) for t in kept[:4]]


def remember(ctx, inputs, output):
    qkv, extra, ends, ctx.longest = inputs
    ctx.save_for_backward(*qkv, extra, ends, *output)


def hand_back(ctx, grads):
    dq, dk, dv, dextra = merged_flash_backward(grads[0], list(ctx.saved_tensors), ctx.longest)
    return [dq, dk, dv], dextra, None, None


merged_flash.register_autograd(hand_back, setup_context=remember)


class FlashMask:
    """One batch's documents as a table of where they end, padded with empty ones to a few sizes so that little is compiled anew."""

    def __init__(self, starts):
        self.rows, self.longest = starts.shape
        flat_starts = starts.flatten().nonzero().flatten()
        size = SMALLEST_TABLE
        while size < len(flat_starts) + 1:
            size *= 2
        self.ends = torch.full((size,), starts.numel(), dtype=torch.int32, device=starts.device)
        self.ends[:len(flat_starts)] = flat_starts.to(torch.int32)

    def __call__(self, q, k, v):
        extra = torch.full((q.shape[0] * q.shape[2], q.shape[1]), -1e30, device=q.device)
        out, lse = merged_flash([flat(x).contiguous() for x in (q, k, v)], extra, self.ends, self.longest)
        return split(out, self.rows), lse.unflatten(0, (self.rows, -1)).transpose(1, 2)

    def merged(self, q, k, v, extra):
        own = extra.transpose(1, 2).flatten(0, 1).contiguous()
        out = merged_flash([flat(x).contiguous() for x in (q, k, v)], own, self.ends, self.longest)[0]
        return split(out, self.rows)
