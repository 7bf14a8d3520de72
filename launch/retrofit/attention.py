"""Causal attention within documents: FlexAttention for GPUs, a mask of T x T for CPUs and for comparing.

A mask called with q [B, Hq, T, D] and k, v [B, Hkv, T, D] returns out [B, Hq, T, D] and lse [B, Hq, T], the log of each row's sum;
`merged` adds to each row a further score for the token's own value (dmc.free_diagonal).
"""
import math

import torch
from torch.nn.attention import flex_attention as flex

from retrofit.dmc import free_diagonal, per_query_head


def documents_of(starts):
    """starts [B, T] bool -> the number of each token's document in its row, int32."""
    return starts.cumsum(1).to(torch.int32)


def positions_of(starts):
    """starts [B, T] bool -> the position of each token in its document."""
    index = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    return index - torch.where(starts, index, 0).cummax(1).values


class FullMask:
    """T x T scores; exact and slow."""

    def __init__(self, starts):
        documents = documents_of(starts)
        self.allowed = (documents.unsqueeze(1) == documents.unsqueeze(2)).tril().unsqueeze(1)  # [B, 1, T, T]

    def __call__(self, q, k, v):
        heads = q.shape[1]
        scores = q.float() @ per_query_head(k.float(), heads).transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~self.allowed, -math.inf)
        lse = scores.logsumexp(-1)
        out = torch.exp(scores - lse.unsqueeze(-1)) @ per_query_head(v.float(), heads)
        return out.to(q.dtype), lse

    def merged(self, q, k, v, extra):
        return merged_after(self, q, k, v, extra)


class FlexMask:
    """Blocks outside of a document's triangle are skipped. The mask of one batch; `call` is meant to run inside torch.compile."""

    def __init__(self, starts):
        documents, (rows, tokens) = documents_of(starts), starts.shape

        def same_document(b, h, q_index, kv_index):
            return (q_index >= kv_index) & (documents[b, q_index] == documents[b, kv_index])

        self.blocks = flex.create_block_mask(same_document, rows, None, tokens, tokens, device=starts.device)

    def __call__(self, q, k, v):
        return flex_with_lse(q, k, v, self.blocks)

    def merged(self, q, k, v, extra):
        return merged_after(self, q, k, v, extra)


def flex_with_lse(q, k, v, blocks):
    gqa = q.shape[1] != k.shape[1]
    if hasattr(flex, "AuxRequest"):
        out, aux = flex.flex_attention(q, k, v, block_mask=blocks, enable_gqa=gqa, return_aux=flex.AuxRequest(lse=True))
        return out, aux.lse
    return flex.flex_attention(q, k, v, block_mask=blocks, enable_gqa=gqa, return_lse=True)


def merged_after(mask, q, k, v, extra):
    out, lse = mask(q, k, v)
    return free_diagonal(out.float(), lse, extra, v.float()).to(q.dtype)
