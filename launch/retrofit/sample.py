"""Samples chats and texts from the unmodified model, many at a time, and writes them as a token file to train on.

python3 -m retrofit.sample MODEL PROMPTS.jsonl --output FILE.bin [--minutes M]
A decode step is plain PyTorch over a cache of fixed size; prompts of a batch are padded on the left.
"""
import argparse
import itertools
import json
import math
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from retrofit import data, dmc, llama, model_files, student, text
from retrofit.weights import plain_layers

PROMPTS_AT_ONCE = 96  # rows of a batch while prompts are read
LONGEST_TEXT = 1000   # tokens of what is no chat, about


class Sampler:
    def __init__(self, checkpoint, device, dtype, limits):
        """limits: dict of new_tokens, temperature, stops (token ids)"""
        self.config, self.device, self.limits = checkpoint.config, device, limits
        self.shape = llama.Shape(self.config.head_size, self.config.norm_eps, 0, 0.0)
        self.layers, self.rest = plain_layers(checkpoint, device, dtype)
        self.dtype, self.stops = dtype, torch.tensor(sorted(limits["stops"]), device=device)

    def attend(self, q, cache, layer, visible):
        """q [B, t, Hq, D] over cache [L, 2, B, Hkv, S, D]; visible [B, t, S] -> [B, t, Hq * D]"""
        k, v = cache[layer, 0], cache[layer, 1]
        rows, tokens = q.shape[:2]
        if tokens > 1:
            mask = visible.unsqueeze(1)
            out = F.scaled_dot_product_attention(q.transpose(1, 2), dmc.per_query_head(k[:, :, :tokens], q.shape[2]),
                                                 dmc.per_query_head(v[:, :, :tokens], q.shape[2]), mask[..., :tokens])
            return out.transpose(1, 2).flatten(2)
        grouped = q.view(rows, k.shape[1], -1, k.shape[-1])  # one token: the group's heads share their reads
        scores = (grouped @ k.transpose(-1, -2)).float() / math.sqrt(k.shape[-1])
        weight = scores.masked_fill(~visible.unsqueeze(1), -math.inf).softmax(-1).to(self.dtype)
        return (weight @ v).reshape(rows, 1, -1)

    def forward(self, tokens, positions, at, state):
        """tokens [B, t] written to the cache from `at` on; state = (cache, visible [B, t, S]) -> logits of the last token [B, V]"""
        cache, visible = state
        turn, h = llama.angles(self.config, positions), self.rest["embedding"][tokens]
        place = slice(at, at + tokens.shape[1])
        for i, w in enumerate(self.layers):
            q, k, v = llama.project(h, w, self.shape)
            q, k = (dmc.rotate(x.float(), *turn, 1.0, 0.0).to(self.dtype) for x in (q, k))
            cache[i, 0, :, :, place], cache[i, 1, :, :, place] = k.transpose(1, 2), v.transpose(1, 2)
            h = llama.mlp(h + F.linear(self.attend(q, cache, i, visible), w.o), w, self.shape)
        return F.linear(llama.rms_norm(h[:, -1], self.rest["final_norm"], self.shape.norm_eps), self.rest["output"]).float()

    def pick(self, logits):
        noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)))
        return (logits / self.limits["temperature"] + noise).argmax(-1)

    @torch.no_grad()
    def answers(self, prompts):
        """prompts: lists of ids -> lists of ids up to and with the first stop token"""
        rows, longest, new = len(prompts), max(map(len, prompts)), self.limits["new_tokens"]
        c, total = self.config, longest + new
        pad = torch.tensor([longest - len(p) for p in prompts], device=self.device).unsqueeze(1)
        tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self.device)
        index = torch.arange(total, device=self.device)
        live = index >= pad  # [B, S]
        cache = torch.zeros(c.layers, 2, rows, c.kv_heads, total, c.head_size, device=self.device, dtype=self.dtype)
        causal = (index[:longest].unsqueeze(1) >= index).unsqueeze(0) & live.unsqueeze(1)
        causal |= torch.eye(longest, total, dtype=torch.bool, device=self.device)  # padding sees itself, so that no row is empty
        positions = (index[:longest] - pad).clamp(min=0)
        parts = [slice(i, i + PROMPTS_AT_ONCE) for i in range(0, rows, PROMPTS_AT_ONCE)]
        picked = self.pick(torch.cat([self.forward(tokens[p], positions[p], 0, (cache[:, :, p], causal[p])) for p in parts]))
        out, done = [picked], torch.isin(picked, self.stops)
        for at in range(longest, total - 1):
            if at % 16 == 0 and done.float().mean() > 0.97:
                break
            visible = (live & (index <= at)).unsqueeze(1)
            picked = self.pick(self.forward(picked.unsqueeze(1), at - pad, at, (cache, visible)))
            out.append(picked)
            done |= torch.isin(picked, self.stops)
        return [cut(ids, self.limits["stops"]) for ids in torch.stack(out, 1).tolist()]


def cut(ids, stops):
    return next((ids[:i + 1] for i, token in enumerate(ids) if token in stops), ids)


def chunks(items, size):
    """Batches of prompts of similar length, in random order."""
    ordered = sorted(items, key=lambda item: len(item["ids"]))
    batches = [ordered[i:i + size] for i in range(0, len(ordered), size)]
    return [batches[i] for i in np.random.default_rng(0).permutation(len(batches))]


def read_prompts(path, tokenizer, longest):
    items = []
    for line in open(path):
        fields = json.loads(line)
        prompt = fields["begin"] if "begin" in fields else text.chat([fields["user"]], fields["system"])
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        if len(ids) <= longest:
            items.append({**fields, "ids": ids})
    return items


def continued(batch, answers, tokenizer, stops):
    """-> finished texts as ids, and what goes on: chats with their follow-up question, other texts until they end"""
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    chats, more = [], []
    for item, answer in zip(batch, answers):
        ended = answer[-1] in stops
        ids = item["ids"] + answer + (newline if ended and "begin" not in item else [])
        if "begin" in item and not ended and len(ids) < LONGEST_TEXT:
            more.append({**item, "ids": ids})
        elif item.get("follow") and ended and len(ids) < 900:
            ask = f"<|im_start|>user\n{item['follow']}<|im_end|>\n<|im_start|>assistant\n"
            more.append({**item, "follow": "", "ids": ids + tokenizer.encode(ask, add_special_tokens=False).ids})
        else:
            chats.append(ids)
    return chats, more


def write(path, chats):
    np.array([t for ids in chats for t in [*ids, data.BREAK]], np.uint16).tofile(path)


def main():
    p = argparse.ArgumentParser(prog="retrofit.sample")
    p.add_argument("model")
    p.add_argument("prompts")
    p.add_argument("--output", required=True)
    p.add_argument("--held-out", help="file for every 50th of them, which --output then lacks")
    p.add_argument("--minutes", type=float, default=1.5)
    p.add_argument("--batch", type=int, default=3072)
    p.add_argument("--new-tokens", type=int, default=320)
    p.add_argument("--temperature", type=float, default=0.9)
    p.add_argument("--longest-prompt", type=int, default=700)
    p.add_argument("--device", default="auto")
    a = p.parse_args()
    begin, device = time.monotonic(), student.device_of(a.device)
    torch.manual_seed(0)
    tokenizer = text.tokenizer_of(a.model)
    stops = {tokenizer.token_to_id(name) for name in ("<|im_end|>", "<|endoftext|>")}
    sampler = Sampler(model_files.open_checkpoint(a.model), device, torch.bfloat16 if device.type == "cuda" else torch.float32,
                      {"new_tokens": a.new_tokens, "temperature": a.temperature, "stops": stops})
    batches, waiting, chats = chunks(read_prompts(a.prompts, tokenizer, a.longest_prompt), a.batch), [], []
    for number in itertools.count():
        if len(waiting) >= a.batch // 2 or not batches:  # what goes on, together: few rows take as long as many
            batches.append(waiting[:a.batch])
            waiting = waiting[a.batch:]
        if not batches[-1] or time.monotonic() - begin > a.minutes * 60:
            break
        batch = batches.pop()
        finished, more = continued(batch, sampler.answers([item["ids"] for item in batch]), tokenizer, stops)
        chats += finished
        waiting += more
        print(f"{number} {len(chats)} chats, {sum(map(len, chats))} tokens, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    chats += [item["ids"] for item in waiting if "begin" in item]  # texts that the time did not let end
    order = np.random.default_rng(0).permutation(len(chats))
    kept = order[:len(order) // 50] if a.held_out else order[:0]
    write(a.output, [chats[i] for i in order[len(kept):]])
    if len(kept):
        write(a.held_out, [chats[i] for i in kept])


if __name__ == "__main__":
    main()
