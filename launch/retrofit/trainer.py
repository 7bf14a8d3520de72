"""The training run: steps, log, evaluation, checkpoints, and what is written at the end."""
import dataclasses
import json
import math
import pathlib
import time

import torch

from retrofit import checkpoint as files
from retrofit import export, loss, plots
from retrofit.progress import Progress
from retrofit.ranks import Alone
from retrofit.schedule import Clock, moment
from retrofit.student import Batch


class TrainingError(Exception):
    pass


@dataclasses.dataclass
class Options:
    output: pathlib.Path
    rows: int = 16               # of a micro-batch
    length: int = 2048
    micro_batches: int = 2
    save_seconds: float = 60.0
    eval_seconds: float = 120.0
    log_steps: int = 10
    eval_batches: int = 2
    branch_cr: float = 0.0       # writes a snapshot when the growing CR passes it
    row_lr: float = 3e-3
    weight_decay: float = 0.1
    cr_weight: float = 1.0
    seed: int = 0
    base_name: str = ""


class Trainer:
    """Owned by main(); network, weights and data are borrowed."""

    def __init__(self, parts, plan, clock, options):
        """parts: dict of checkpoint, network, weights, train (Mixture), held_out ({name: Mixture}), ranks (Alone by default)"""
        self.source, self.network, self.weights = parts["checkpoint"], parts["network"], parts["weights"]
        self.train, self.held_out, self.ranks = parts["train"], parts["held_out"], parts.get("ranks") or Alone()
        self.plan, self.clock, self.options = plan, clock, options
        groups = self.weights.groups(plan.lr, options.row_lr, options.weight_decay)
        fused = self.network.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(groups, lr=plan.lr, betas=(0.9, 0.95), fused=fused)
        self.stage, self.branched, self.stopping = 1 if plan.zero_share > 0 else 2, False, False
        self.tokens, self.evaluations = 0, []

    # -- state ------------------------------------------------------------------------------------------------------
    def path(self, name):
        return self.options.output / name

    def save(self):
        state = {"parameters": self.weights.values(), "optimizer": self.weights.optimizer_state(self.optimizer),
                 "clock": self.clock.state(), "data": self.train.state(), "stage": self.stage, "branched": self.branched,
                 "tokens": self.tokens}
        if self.ranks.first:
            files.save(self.path("checkpoint.pt"), state)
        if self.stage == 3:
            self.write_model("model", self.plan.target_cr)

    def resume(self):
        """-> whether there was something to go on from"""
        path = self.path("checkpoint.pt")
        if not files.exists(path):
            return False
        state = files.load(path, self.network.device if self.weights.replicated else None)
        self.set_parameters(state["parameters"], path)
        if len(state.get("data", {}).get("streams", [])) != len(self.train.streams):
            raise files.CheckpointError(f"{path}: of a run with other --data")
        self.weights.load_optimizer(self.optimizer, state["optimizer"])
        self.clock.seek(state["clock"])
        self.train.seek(state["data"])
        self.stage, self.branched, self.tokens = state["stage"], state["branched"], state["tokens"]
        torch.manual_seed(self.options.seed + self.clock.step)  # other noise than the first steps had
        return True

    def set_parameters(self, values, path):
        if {name: tuple(tensor.shape) for name, tensor in values.items()} != self.weights.shapes():
            raise files.CheckpointError(f"{path}: of another model or --lora-rank")
        self.weights.set_values(values)

    def log(self, event, **fields):
        if not self.ranks.first:
            return
        with open(self.path("log.jsonl"), "a") as file:
            file.write(json.dumps({"event": event, "step": self.clock.step, "stage": self.stage, **fields}) + "\n")

    # -- one step ---------------------------------------------------------------------------------------------------
    def batch(self, mixture):
        parts = mixture.batch(self.options.rows, self.options.length)
        return Batch(*(self.ranks.own(part).to(self.network.device, non_blocking=True) for part in parts))

    def forward(self, mixture, leaves, now, hard=False):
        """-> Result of a micro-batch, its figures over all ranks"""
        batch = self.batch(mixture)
        return self.ranks.joined(self.network.forward(batch, leaves, now, hard), batch.targets)

    def step(self, now):
        """-> means over micro-batches [kl, lm, teacher lm], alpha [L, Hkv], hard [L, Hkv], gradient norm"""
        for group in self.optimizer.param_groups:
            group["lr"] = now.lr / self.plan.lr * group["peak"]
        leaves, count, sums = self.weights.leaves(), self.options.micro_batches, None
        for i in range(self.clock.step * count, (self.clock.step + 1) * count):
            hard = now.hard and i % 2 == 0
            result = self.forward(self.train, leaves, now, hard)
            total = result.loss
            if not hard:  # hard decisions have no gradient
                total = total + self.options.cr_weight * loss.shortfall(result.accumulate, now.cr)
            (total / count).backward()
            found = [result.means, result.accumulate.detach(), result.hard]
            sums = found if sums is None else [a + b for a, b in zip(sums, found)]
        leaves.backward()
        if self.weights.replicated:
            self.ranks.average(self.weights.parameters.values())
        norm = self.weights.clip()
        if torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.tokens += count * self.options.rows * self.options.length
        return *(s / count for s in sums), norm

    def enter(self, now):
        """What is done once when a stage begins or a CR is passed."""
        if now.stage != self.stage:
            self.evaluate()
            self.log("stage", now=now.stage)
            if self.stage == 1:
                self.weights.zero_rows()
                for parameter in self.weights.decision_parameters():
                    self.optimizer.state.pop(parameter, None)
                self.write_model("snapshot-cr1", 1.0)
            self.stage = now.stage
        if self.options.branch_cr and not self.branched and now.stage > 1 and now.cr >= self.options.branch_cr:
            self.branched = True
            self.evaluate()
            name = f"{self.options.branch_cr:g}"
            values = self.weights.values()
            if self.ranks.first:
                files.save(self.path(f"snapshot-cr{name}.pt"), {"parameters": values})
            self.write_model(f"snapshot-cr{name}", self.options.branch_cr)

    # -- the run ----------------------------------------------------------------------------------------------------
    def going(self):
        """Whether there is a step to come. Ranks agree on it: the clock is that of rank 0, and a signal to one stops all."""
        self.clock.used, self.clock.reserved = self.ranks.lead((self.clock.used, self.clock.reserved))
        return self.clock.share() < 1 and not self.ranks.any(self.stopping)

    def due(self, last, seconds):
        return self.ranks.lead([time.monotonic() - last > seconds])[0]

    def run(self, started):
        self.options.output.mkdir(parents=True, exist_ok=True)
        resumed, bar, saved = self.ranks.attempt(self.resume), Progress(), time.monotonic()
        if self.weights.replicated:
            self.ranks.same(self.weights.parameters.values())
        evaluated, began, first = saved, time.monotonic(), True
        self.log("begin", resumed=resumed, plan=dataclasses.asdict(self.plan), options={k: str(v) for k, v in vars(self.options).items()})
        tokens = self.tokens
        while self.going():
            now = moment(self.plan, self.clock.share())
            self.enter(now)
            means, alpha, hard, norm = self.step(now)
            if first:
                norm.item()
                began, first, tokens = time.monotonic(), False, self.tokens
                self.clock.begin(began, started)
                self.log("first step", seconds=round(began - started, 1))
            self.clock.advance(time.monotonic())
            if self.clock.step % self.options.log_steps == 0:
                speed = (self.tokens - tokens) / max(1e-9, time.monotonic() - began)
                self.report(bar, now, (means, alpha, hard, norm), speed)
            if self.due(saved, self.options.save_seconds):
                self.save()
                saved = time.monotonic()
            if self.due(evaluated, self.options.eval_seconds):
                self.evaluate()
                evaluated = time.monotonic()
        bar.close()
        self.save()
        return self.clock.share() >= 1

    def report(self, bar, now, found, speed):
        means, alpha, hard, norm = found
        kl, lm, teacher = means.tolist()
        fields = {"share": round(self.clock.share(), 4), "kl": kl, "lm": lm, "perplexity": math.exp(min(lm, 20)),
                  "teacher_perplexity": math.exp(min(teacher, 20)), "cr": ratio(alpha), "hard_cr": ratio(hard), "target_cr": now.cr,
                  "lr": now.lr, "noise": now.noise, "norm": norm.item(), "tokens": self.tokens, "tokens_per_second": round(speed)}
        if self.network.device.type == "cuda":
            fields["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2 ** 30, 1)
        self.log("step", **fields)
        if self.ranks.first:
            bar.show(self.clock.share(), self.clock.step, self.stage, fields)

    def evaluate(self):
        """Each held-out text with decisions as inference makes them, beside relaxed ones on the same tokens -> figures by name"""
        return {name: self.evaluate_on(name, mixture) for name, mixture in self.held_out.items()}

    def evaluate_on(self, name, mixture):
        now = dataclasses.replace(moment(self.plan, self.clock.share()), stage=self.stage)
        (kl, lm, teacher), heat = self.measured(mixture, now, hard=True)
        relaxed, _ = self.measured(mixture, now, hard=False)
        if self.stage == 1:
            heat = torch.zeros_like(heat)
        fields = {"name": name, "kl": kl, "relaxed_kl": relaxed[0], "perplexity": math.exp(lm), "teacher_perplexity": math.exp(teacher),
                  "cr": ratio(heat), "tokens": self.tokens, "by_head": [[round(x, 4) for x in row] for row in heat.tolist()]}
        self.log("evaluation", **fields)
        return fields

    def measured(self, mixture, now, hard):
        """-> means [kl, lm, teacher lm] of the mixture's first batches, shares that inference would accumulate [L, Hkv]"""
        mixture.seek(mixture.beginning)
        leaves, sums = self.weights.leaves(), None
        for _ in range(self.options.eval_batches):
            result = self.forward(mixture, leaves, now, hard)
            found = [result.means.detach(), result.hard]
            sums = found if sums is None else [a + b for a, b in zip(sums, found)]
        return (sums[0] / self.options.eval_batches).tolist(), sums[1] / self.options.eval_batches

    def write_model(self, name, cr):
        weights = self.weights.whole()
        if not self.ranks.first:
            return
        dmc = export.dmc_block(cr, self.network.options["window"], self.network.options["offset"])
        if weights.rank:
            export.save_adapter(weights, self.path(name), dmc, self.options.base_name)
        else:
            export.save_model(weights, self.source, self.path(name), dmc)

    def finish(self):
        if self.stage < 3:
            raise TrainingError(f"the run is over in stage {self.stage} of 3, so no model is written: it needs more --minutes or --steps")
        figures = self.evaluate()
        self.write_model("model", self.plan.target_cr)
        if self.ranks.first:
            plots.write(self.path("log.jsonl"), self.options.output)
        return figures


def ratio(alpha):
    """mean alpha -> tokens for each slot"""
    return 1 / max(1e-6, 1 - alpha.mean().item())
