"""A Llama in PyTorch, plain (the teacher) and with DMC (the student). Functions over tensors, so that one layer compiles once for all.

    h += Wo attention(rope, pool(Wqkv norm(h)));   h += Wdown(silu(Wgate norm(h)) * Wup norm(h))
"""
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from retrofit import dmc


class Shape(NamedTuple):
    head_size: int
    norm_eps: float
    window: int
    offset: float


class LayerWeights(NamedTuple):
    q: torch.Tensor      # each [out, in] in the type of the products
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor
    attn_norm: torch.Tensor  # [E]
    ffn_norm: torch.Tensor


class Angles(NamedTuple):
    cos: torch.Tensor  # [B, T, 1, D/2] float32
    sin: torch.Tensor


class Controls(NamedTuple):
    """What the schedule changes while the same compiled layer runs; tensors without dimensions."""
    keep: torch.Tensor   # share of the last component of q and k that is still used: 1 plain, 0 from stage 2 on
    gate: torch.Tensor   # 1: decisions and weights count
    hard: torch.Tensor   # 1: decide as inference does


class Decided(NamedTuple):
    accumulate: torch.Tensor  # [Hkv] mean alpha
    hard: torch.Tensor        # [Hkv] share of tokens that inference would accumulate


def inverse_frequencies(config):
    half = config.head_size // 2
    inverse = config.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
    if not config.rope_scaling:
        return inverse
    s = config.rope_scaling
    turns = s["original_max_position_embeddings"] * inverse / (2 * math.pi)
    mix = ((turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])).clamp(0, 1)
    return inverse * (mix + (1 - mix) / s["factor"])


def angles(config, positions):
    """positions [B, T]"""
    inverse = inverse_frequencies(config).to(positions.device)
    turned = (positions.double().unsqueeze(-1) * inverse).unsqueeze(2)
    return Angles(turned.cos().float(), turned.sin().float())


def rms_norm(x, weight, eps):
    y = x.float()
    return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def mlp(h, w, shape):
    x = rms_norm(h, w.ffn_norm, shape.norm_eps)
    return h + F.linear(F.silu(F.linear(x, w.gate)) * F.linear(x, w.up), w.down)


def project(h, w, shape):
    x = rms_norm(h, w.attn_norm, shape.norm_eps)
    return [F.linear(x, matrix).unflatten(-1, (-1, shape.head_size)) for matrix in (w.q, w.k, w.v)]


def plain_layer(h, w, turn, mask, shape):
    """h [B, T, E] -> [B, T, E]"""
    q, k, v = project(h, w, shape)
    one, zero = 1.0, 0.0
    q, k = (dmc.rotate(x.float(), *turn, one, zero).to(h.dtype).transpose(1, 2) for x in (q, k))
    out, _ = mask(q, k, v.transpose(1, 2))
    return mlp(h + F.linear(out.transpose(1, 2).flatten(2), w.o), w, shape)


def dmc_layer(h, w, given, mask, shape):
    """given = (Angles, noise [B, T, Hkv], starts [B, T], Controls) -> h [B, T, E], Decided"""
    turn, noise, starts, controls = given
    q, k, v = project(h, w, shape)
    logits = k[..., -1].float() - shape.offset
    x = torch.where(controls.gate > 0, dmc.decisions(logits, starts, noise, controls.hard), -dmc.SURE)
    alpha, x_next = torch.sigmoid(x), dmc.next_decision(x)
    weight = torch.where(controls.gate > 0, dmc.importance(q, k.shape[2], shape.offset), 1.0)
    edge = torch.arange(shape.head_size, device=h.device) == shape.head_size - 1
    pooled = dmc.window_pool(torch.cat([k.float(), v.float()], -1), weight, alpha, shape.window)
    key, value = pooled.split(shape.head_size, -1)
    mark = dmc.key_mark(x_next, shape.head_size).unsqueeze(-1) * controls.gate
    q = dmc.rotate(q.float(), *turn, controls.keep, controls.gate * dmc.QUERY_MARK).to(h.dtype).transpose(1, 2)
    unmarked = dmc.rotate(key, *turn, controls.keep, 0.0)
    key = torch.where(edge, unmarked + mark, unmarked).to(h.dtype).transpose(1, 2)
    value = value.to(h.dtype).transpose(1, 2)
    extra = own_scores(q, unmarked.to(h.dtype).transpose(1, 2)) + dmc.missing_weight(x_next.transpose(1, 2), q.shape[1])
    out = mask.merged(q, key, value, extra)
    h = mlp(h + F.linear(out.transpose(1, 2).flatten(2), w.o), w, shape)
    return h, Decided(alpha.mean((0, 1)), (torch.where(starts.unsqueeze(-1), -1.0, logits) > 0).float().mean((0, 1)))


def own_scores(q, k):
    """q [B, Hq, T, D], k [B, Hkv, T, D] -> the diagonal's scores [B, Hq, T]"""
    return (q.float() * dmc.per_query_head(k.float(), q.shape[1])).sum(-1) / math.sqrt(q.shape[-1])
