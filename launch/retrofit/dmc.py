"""The mathematics of DMC in training and at inference, on tensors. docs/dmc.md has the exact rules.

Decisions travel as x with alpha = sigmoid(x): log(alpha) and log(1 - alpha) are then exact however sure a decision is.
Shapes: B rows, T tokens, Hq query heads, Hkv KV heads, G = Hq / Hkv, D head size; everything before RoPE is [B, T, H, D].
"""
import math

import torch
import torch.nn.functional as F

OFFSET = 5.0
EPSILON = 2.0 ** -7
TEMPERATURE = 0.1
SURE = 1e4          # |x| of a decision without doubt: sigmoid is exactly 0 or 1, and exp(-SURE) is 0
QUERY_MARK = 8.0    # what the freed component of a rotated query holds, exact in bf16


def importance(q, kv_heads, offset=OFFSET):
    """q [B, T, Hq, D] -> w [B, T, Hkv], the mean over each group of query heads."""
    logits = q[..., -1].float().unflatten(-1, (kv_heads, -1)).mean(-1)
    return torch.sigmoid(logits + offset) + EPSILON


def decisions(logits, starts, noise, hard):
    """logits = k[..., -1] - offset [B, T, Hkv], starts [B, T] (first tokens of sequences), noise as logits, hard 0 or 1 -> x."""
    soft = (logits + noise) / TEMPERATURE
    sure = torch.where(logits > 0, SURE, -SURE)
    return torch.where(starts.unsqueeze(-1), -SURE, torch.where(hard > 0, sure, soft))


def logistic_noise(shape, device, generator=None):
    """The difference of two Gumbel(0, 1) variables."""
    u = torch.rand(shape, device=device, generator=generator).clamp_(1e-7, 1 - 1e-7)
    return torch.log(u) - torch.log1p(-u)


def earlier(x, tokens):
    """x [B, T, ...] as it was `tokens` before, zero where nothing was."""
    return F.pad(x[:, :-tokens], (0, 0) * (x.dim() - 2) + (tokens, 0))


def window_pool(kv, w, alpha, window):
    """kv [B, T, Hkv, C], w and alpha [B, T, Hkv] -> the slot's mean after each token [B, T, Hkv, C], over at most `window` tokens."""
    window = min(window, kv.shape[1]) if window else kv.shape[1]
    total, weight, reach = w.unsqueeze(-1) * kv, w, torch.ones_like(alpha)
    for back in range(1, window):
        reach = reach * (earlier(alpha, back - 1) if back > 1 else alpha)
        share = reach * earlier(w, back)
        total = total + share.unsqueeze(-1) * earlier(kv, back)
        weight = weight + share
    return total / weight.unsqueeze(-1)


def next_decision(x):
    """x [B, T, Hkv] of token t + 1 at t: whether the slot that t left is closed. The last token's stays open."""
    return F.pad(x[:, 1:], (0, 0, 0, 1), value=-SURE)


def rotate(x, cos, sin, keep, last):
    """Half-split RoPE of x [B, T, H, D]; the last component is kept to the share `keep`, before and after, then `last` is added."""
    half = x.shape[-1] // 2
    edge = torch.arange(x.shape[-1], device=x.device) == x.shape[-1] - 1
    x = torch.where(edge, x * keep, x)
    a, b = x[..., :half], x[..., half:]
    y = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
    return torch.where(edge, y * keep + last, y)


def key_mark(x_next, head_size):
    """log(1 - alpha[j + 1]) of column j, as a key component that meets QUERY_MARK at scale 1 / sqrt(D)."""
    return -F.softplus(x_next) * (math.sqrt(head_size) / QUERY_MARK)


def free_diagonal(out, lse, extra, v):
    """Attention with every column j at weight 1 - alpha[j + 1], its diagonal brought back to weight 1.

    out [B, Hq, T, D], lse and extra [B, Hq, T], v [B, Hkv, T, D]. The part alpha of the diagonal's weight is missing in the sums
    behind `lse`: extra is the diagonal's own score plus log alpha, so exp(extra) joins them.
    """
    share = torch.sigmoid(extra - lse).unsqueeze(-1)
    return out + share * (per_query_head(v, out.shape[1]) - out)


def missing_weight(x_next, query_heads):
    """log(alpha[t + 1]), x_next [B, Hkv, T] -> [B, Hq, T]"""
    return per_query_head(-F.softplus(-x_next), query_heads)


def per_query_head(x, query_heads):
    """x [B, Hkv, ...] -> [B, Hq, ...], each KV head for all query heads of its group."""
    shape = list(x.shape)
    shape.insert(2, query_heads // x.shape[1])
    return x.unsqueeze(2).expand(shape).flatten(1, 2)
