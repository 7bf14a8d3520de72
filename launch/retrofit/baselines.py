"""What a cache of a quarter of the tokens costs without training: perplexity of the unmodified model under policies that drop entries.

python3 -m retrofit.baselines MODEL NAME=FILES... [--cr 4] [--budget growing|fixed] [--length 1024] [--windows 8] [--dmc FOLDER] [--output-json FILE]
FILES are token files (data.py). Every window is the beginning of a document, a sequence of its own. The query of token t sees at most
  growing: ceil((t + 1) / CR) entries of each KV head, as many as a DMC cache of that ratio holds by then;
  fixed:   ceil(length / CR) entries, so that only the cache of the last token is as small, and nothing is dropped before it is full.
--dmc measures a retrofit, an adapter to MODEL or a directory, on the same windows, decisions as inference makes them.
Keys keep the positions they were read at. The policies:
  full           everything
  every          every CR-th token and as many of the newest as fit, at least RECENT; for them the oldest of the former go
  window         the newest tokens
  sinks          the first SINKS tokens and the newest others
  heavy-hitters  H2O: half of the budget the newest, half those of the older that got most attention so far, head by head
"""
import argparse
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from retrofit import adapter, data, dmc, llama, model_files, schedule, student
from retrofit.weights import Leaves, Weights, plain_layers

SINKS, RECENT = 4, 8
POLICIES = ("full", "every", "window", "sinks", "heavy-hitters")


def budgets(tokens, ratio, fixed=False):
    """-> [T] entries that the query of token t may see"""
    counts = torch.full((tokens,), tokens) if fixed else torch.arange(1, tokens + 1)
    return torch.ceil(counts / ratio).long()


def newest(tokens, counts):
    """-> [T, T] bool: of each row the `counts` newest tokens up to its own"""
    age = torch.arange(tokens).unsqueeze(1) - torch.arange(tokens)
    return (age >= 0) & (age < counts.unsqueeze(1))


def recent_counts(budget, stride):
    """budget [T] -> [T] how many of the newest fit beside every stride-th older token; RECENT where not even those do"""
    index = torch.arange(len(budget))
    count = index + 1
    row = index.unsqueeze(1)
    total = count + torch.div(row - count, stride, rounding_mode="floor") + 1  # row - count is the newest of the older; -1 where none is
    fits = (count <= row + 1) & (total <= budget.unsqueeze(1))
    return torch.maximum((fits * count).amax(1), budget.clamp(max=RECENT))


def fixed_mask(policy, budget, ratio):
    """budget [T] -> [T, T] bool, what the query of row t sees under a policy that looks at positions alone"""
    tokens = len(budget)
    index = torch.arange(tokens)
    causal = index.unsqueeze(1) >= index
    if policy == "full":
        return causal
    if policy == "window":
        return newest(tokens, budget)
    if policy == "sinks":
        both = newest(tokens, budget - SINKS) | (index < SINKS) & causal
        return torch.where((budget > SINKS).unsqueeze(1), both, newest(tokens, budget))
    stride = math.ceil(ratio)
    recent = newest(tokens, recent_counts(budget, stride))
    strided = causal & (index % stride == 0) & ~recent
    room = (budget - recent.sum(1)).unsqueeze(1)
    younger = strided.flip(1).cumsum(1).flip(1)  # strided tokens from here on: the newest `room` of them stay
    return recent | strided & (younger <= room)


def attend_fixed(scores, mask):
    """scores [W, Hq, T, T] -> probabilities"""
    return scores.masked_fill(~mask, -math.inf).softmax(-1)


def attend_heavy_hitters(scores, group, budget):
    """Token by token: entries above the budget leave, those of the lowest marks first, then the row's softmax over what is kept is
    added to the marks. scores [W, Hq, T, T], marks [W * Hkv, T]. The newest half of the budget stays; what left never comes back.
    """
    windows, heads, tokens, _ = scores.shape
    rows = windows * heads // group
    scores = scores.reshape(rows, group, tokens, tokens)
    kept, marks, out = torch.zeros(rows, tokens, dtype=torch.bool), torch.zeros(rows, tokens), torch.zeros_like(scores)
    every, count = torch.arange(rows), 0
    for t in range(tokens):
        kept[:, t], count, limit = True, count + 1, int(budget[t])
        while count > limit:
            older = t + 1 - (limit + 1) // 2
            leaving = marks[:, :older].masked_fill(~kept[:, :older], math.inf).argmin(-1)
            kept[every, leaving], count = False, count - 1
        row = scores[:, :, t, :t + 1].masked_fill(~kept[:, None, :t + 1], -math.inf).softmax(-1)
        out[:, :, t, :t + 1] = row
        marks[:, :t + 1] += row.sum(1)
    return out.view(windows, heads, tokens, tokens)


class Reader:
    """The unmodified model with one policy; float32 on the CPU."""

    def __init__(self, checkpoint):
        self.config = checkpoint.config
        self.shape = llama.Shape(self.config.head_size, self.config.norm_eps, 0, 0.0)
        self.layers, self.rest = plain_layers(checkpoint, torch.device("cpu"), torch.float32)

    def attend(self, q, k, v, probabilities):
        """q [W, Hq, T, D], k, v [W, Hkv, T, D] rotated -> [W, Hq, T, D]"""
        heads = q.shape[1]
        scores = q @ dmc.per_query_head(k, heads).transpose(-1, -2) / math.sqrt(q.shape[-1])
        return probabilities(scores) @ dmc.per_query_head(v, heads)

    def probabilities(self, policy, budget, ratio):
        if policy == "heavy-hitters":
            group = self.config.query_heads // self.config.kv_heads
            return lambda scores: attend_heavy_hitters(scores, group, budget)
        mask = fixed_mask(policy, budget, ratio)
        return lambda scores: attend_fixed(scores, mask)

    @torch.no_grad()
    def loss(self, tokens, probabilities):
        """tokens [W, T] -> mean negative log-likelihood of all but the first of each window"""
        h = self.rest["embedding"][tokens]
        turn = llama.angles(self.config, torch.arange(tokens.shape[1]).expand_as(tokens))
        for w in self.layers:
            q, k, v = llama.project(h, w, self.shape)
            q, k = (dmc.rotate(x, *turn, 1.0, 0.0) for x in (q, k))
            out = self.attend(*(x.transpose(1, 2) for x in (q, k, v)), probabilities)
            h = llama.mlp(h + F.linear(out.transpose(1, 2).flatten(2), w.o), w, self.shape)
        h = llama.rms_norm(h, self.rest["final_norm"], self.shape.norm_eps)
        parts = [F.cross_entropy(F.linear(row[:-1], self.rest["output"]), ids[1:]).item() for row, ids in zip(h, tokens)]
        return sum(parts) / len(parts)


@torch.no_grad()
def retrofitted(base, folder, tokens):
    """-> mean negative log-likelihood of tokens [W, T] as in Reader.loss, CR"""
    checkpoint, block = adapter.open_retrofitted(base, folder)
    cpu = torch.device("cpu")
    options = {"window": block["window"], "offset": block["offset"], "mix": 1.0, "pieces": 8, "compiled": False, "attention": "full", "teacher": False}
    network, made = student.Network(checkpoint, options, cpu, torch.float32), Weights(checkpoint, cpu, torch.float32, 0)
    starts = torch.zeros_like(tokens, dtype=torch.bool)
    starts[:, 0] = True
    batch = student.Batch(tokens, starts, data.targets_of(tokens, starts))
    result = network.forward(batch, Leaves(made), schedule.Moment(3, 0.0, 1.0, 0.0, 0.0), hard=True)
    return result.means[1].item(), 1 / (1 - result.hard.mean().item())


def windows_of(tokens, length, count):
    """The beginnings of documents of at least `length` tokens, spread over the file -> [W, T]"""
    ends = np.flatnonzero(tokens == data.BREAK)
    begins = np.concatenate([[0], ends[:-1] + 1])
    long = begins[ends - begins >= length]
    if len(long) < count:
        raise data.DataError(f"only {len(long)} documents have {length} tokens; lower --length or --windows")
    chosen = long[np.linspace(0, len(long) - 1, count).astype(int)]
    return torch.from_numpy(np.stack([tokens[b:b + length].astype(np.int64) for b in chosen]))


def flags():
    p = argparse.ArgumentParser(prog="retrofit.baselines", description="perplexity of an unmodified model whose cache drops entries")
    p.add_argument("model")
    p.add_argument("texts", nargs="+", metavar="NAME=FILES", help="token files")
    p.add_argument("--cr", type=float, action="append", help="tokens for each entry; may be repeated; default 4")
    p.add_argument("--budget", choices=["growing", "fixed"], default="growing")
    p.add_argument("--length", type=int, default=1024)
    p.add_argument("--windows", type=int, default=8)
    p.add_argument("--policies", nargs="*", choices=POLICIES, default=list(POLICIES), help="may be empty")
    p.add_argument("--dmc", metavar="FOLDER", help="a retrofit of MODEL, measured too")
    p.add_argument("--output-json", metavar="FILE")
    return p


def measure(a, reader, texts):
    rows = []

    def add(name, policy, ratio, loss):
        count = len(texts[name]) * (a.length - 1)
        rows.append({"text": name, "policy": policy, "cr": ratio, "budget": a.budget, "perplexity": math.exp(loss), "tokens": count, "length": a.length})
        print(f"{name:10} {policy:14} CR {ratio:<5.3g} {a.budget:8} perplexity {math.exp(loss):10.3f}  {count} tokens, {time.monotonic() - begin:.0f} s", flush=True)
        if a.output_json:
            pathlib.Path(a.output_json).write_text(json.dumps(rows, indent=1) + "\n")

    for name, tokens in texts.items():
        for policy, ratio in [(policy, cr) for policy in a.policies for cr in ([1.0] if policy == "full" else a.cr or [4.0])]:
            begin, budget = time.monotonic(), budgets(a.length, ratio, a.budget == "fixed")
            add(name, policy, ratio, reader.loss(tokens, reader.probabilities(policy, budget, ratio)))
        if a.dmc:
            begin = time.monotonic()
            loss, ratio = retrofitted(a.model, a.dmc, tokens)
            add(name, "dmc", ratio, loss)


def main():
    p = flags()
    a = p.parse_args()
    if min(a.cr or [1]) < 1 or a.length < 16 or a.windows < 1:
        p.error("--cr: at least 1; --length: at least 16; --windows: at least 1")
    try:
        checkpoint = model_files.open_checkpoint(a.model)
        texts = {}
        for text in a.texts:
            name, _, pattern = text.partition("=")
            texts[name] = windows_of(data.parse_source(name, pattern, checkpoint.config.vocab)[0], a.length, a.windows)
    except (data.DataError, model_files.ModelFileError, OSError) as error:
        print(f"retrofit.baselines: error: {error}", file=sys.stderr)
        return 1
    try:
        measure(a, Reader(checkpoint), texts)
    except model_files.ModelFileError as error:
        print(f"retrofit.baselines: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
