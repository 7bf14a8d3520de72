"""What holds at a share `u` in 0..1 of the run: a pure function, so that steps or a clock may drive it."""
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Plan:
    target_cr: float = 4.0
    zero_share: float = 0.04      # stage 1
    grow_share: float = 0.35      # stage 2; the rest is stage 3
    lr: float = 1e-3
    final_lr_share: float = 0.02
    warmup: float = 0.01
    start_cr: float = 1.0         # of a run that goes on from a snapshot; then zero_share is 0
    quiet_share: float = 0.5      # share of stage 3 after which decisions have no noise any more
    hard_share: float = 0.2       # last part of stage 3, in which every other micro-batch decides as inference does


@dataclasses.dataclass(frozen=True)
class Moment:
    stage: int      # 1 zero out, 2 retrofit, 3 fine-tune
    keep: float     # of the last components of q and k
    cr: float       # that the loss asks for
    lr: float
    noise: float    # factor of the Gumbel noise
    hard: bool = False  # whether every other micro-batch decides as inference does


def moment(plan, u):
    u = min(max(u, 0.0), 1.0)
    rise = min(1.0, u / plan.warmup) if plan.warmup > 0 else 1.0
    if u < plan.zero_share:
        return Moment(1, max(0.0, 1 - u / (0.8 * plan.zero_share)), 1.0, plan.lr * rise, 1.0)
    grown = plan.zero_share + plan.grow_share
    if u < grown:
        share = (u - plan.zero_share) / plan.grow_share
        return Moment(2, 0.0, plan.start_cr + (plan.target_cr - plan.start_cr) * share, plan.lr * rise, 1.0)
    share = (u - grown) / max(1e-9, 1 - grown)
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    lr = plan.lr * (plan.final_lr_share + (1 - plan.final_lr_share) * cosine)
    noise = max(0.0, 1 - share / plan.quiet_share) if plan.quiet_share > 0 else 1.0
    return Moment(3, 0.0, plan.target_cr, lr * rise, noise, share >= 1 - plan.hard_share)


class Clock:
    """Turns steps or minutes into u. Time spent before the first step is over (compiling) shortens the run, not a stage."""

    def __init__(self, steps=0, minutes=0.0):
        self.steps, self.seconds = steps, minutes * 60
        self.step, self.used, self.reserved = 0, 0.0, 0.0

    def begin(self, now, started):
        """`now` in seconds, when the first step of this process is over; `started` when the process began.

        A run that goes on keeps its share: what its later processes spend on beginning makes it longer.
        """
        self.last = now
        if self.step == 0:
            self.reserved = now - started

    def advance(self, now):
        self.step += 1
        self.used += now - self.last
        self.last = now

    def share(self):
        if self.steps:
            return self.step / self.steps
        return self.used / max(1.0, self.seconds - self.reserved)

    def state(self):
        return {"step": self.step, "used": self.used, "reserved": self.reserved}

    def seek(self, state):
        self.step, self.used, self.reserved = state["step"], state["used"], state["reserved"]
