"""The network as the trainer sees it: one forward pass of the student and of the teacher over a packed batch."""
import dataclasses
import os

import torch

from retrofit import attention, dmc, llama, loss
from retrofit.ranks import Alone
from retrofit.weights import plain_layers


@dataclasses.dataclass
class Batch:
    tokens: torch.Tensor   # [B, T] int64
    starts: torch.Tensor   # [B, T] bool
    targets: torch.Tensor  # [B, T] int64


@dataclasses.dataclass
class Result:
    loss: torch.Tensor       # with a graph: lm or distillation, without the compression term
    means: torch.Tensor      # [kl, lm, teacher lm] per token
    accumulate: torch.Tensor  # [L, Hkv] mean alpha, with a graph
    hard: torch.Tensor       # [L, Hkv] share that inference would accumulate


class Network:
    """Owns the teacher and the compiled functions. compiled: by torch.compile; else plain code."""

    def __init__(self, checkpoint, options, device, dtype):
        """options: dict of window, offset, mix, pieces, compiled, attention (flex, flash, full), teacher (bool), ranks (Alone by default)"""
        self.config, self.options, self.device, self.dtype = checkpoint.config, options, device, dtype
        self.shape = llama.Shape(self.config.head_size, self.config.norm_eps, options["window"], options["offset"])
        self.teacher = plain_layers(checkpoint, device, dtype) if options["teacher"] else None
        self.compiled, self.ranks = options["compiled"], options.get("ranks") or Alone()
        wrap = (lambda f: torch.compile(f, dynamic=False)) if self.compiled else lambda f: f
        self.student_layer, self.teacher_layer = wrap(llama.dmc_layer), wrap(llama.plain_layer)
        self.piece = wrap(loss.piece_gradients)

    def mask(self, starts):
        return mask_type(self.options["attention"])(starts)

    def controls(self, moment, hard=False):
        number = lambda x: torch.tensor(float(x), device=self.device)
        return llama.Controls(number(moment.keep), number(moment.stage > 1), number(hard))

    def noise(self, batch, factor):
        rows, tokens = batch.tokens.shape
        if factor == 0:
            return torch.zeros((self.config.layers, rows, tokens, self.config.kv_heads), device=self.device)
        shape = (self.config.layers, rows * self.ranks.count, tokens, self.config.kv_heads)  # all ranks draw the same and keep their own
        return self.ranks.own(dmc.logistic_noise(shape, self.device), 1) * factor

    def forward(self, batch, leaves, moment, hard=False):
        """-> Result; call inside torch.enable_grad for training."""
        turn = llama.angles(self.config, attention.positions_of(batch.starts))
        mask = self.mask(batch.starts)
        known = self.teach(batch, turn, mask)
        noise, controls = self.noise(batch, 0.0 if hard else moment.noise), self.controls(moment, hard)
        rest, decided = leaves.tensors, []
        h = rest["embedding"][batch.tokens]
        h = h if h.requires_grad else h.requires_grad_()  # so that the first layer is the same graph as the others
        for i, layer in enumerate(leaves.layers()):
            h, found = self.student_layer(h, layer, (turn, noise[i], batch.starts, controls), mask, self.shape)
            decided.append(found)
        h = llama.rms_norm(h, rest["final_norm"], self.shape.norm_eps).flatten(0, 1)
        given = {"teacher": known, "targets": batch.targets.flatten(), "mix": self.options["mix"] if known else 1.0,
                 "pieces": self.options["pieces"], "function": self.piece}
        value, means = loss.VocabularyLoss.apply(h, rest["output"], given)
        return Result(value, means, torch.stack([d.accumulate for d in decided]), torch.stack([d.hard for d in decided]).detach())

    @torch.no_grad()
    def teach(self, batch, turn, mask):
        """-> (last hidden states [N, E], output matrix [V, E]) of the unmodified model, or None"""
        if self.teacher is None:
            return None
        layers, rest = self.teacher
        h = rest["embedding"][batch.tokens]
        for layer in layers:
            h = self.teacher_layer(h, layer, turn, mask, self.shape)
        return llama.rms_norm(h, rest["final_norm"], self.shape.norm_eps).flatten(0, 1), rest["output"]


def mask_type(name):
    if name == "flash":
        from retrofit.attention_flash import FlashMask
        return FlashMask
    return {"flex": attention.FlexMask, "full": attention.FullMask}[name]


def device_of(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        torch.set_float32_matmul_precision("high")
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    return torch.device(name)
