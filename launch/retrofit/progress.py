"""A line that is rewritten on a terminal, a line now and then elsewhere."""
import os
import sys
import time

STAGES = {1: "zero out", 2: "retrofit", 3: "fine-tune"}
BAR = 24
SECONDS_BETWEEN_LINES = 10


class Progress:
    def __init__(self, stream=sys.stderr):
        self.stream, self.terminal, self.last = stream, stream.isatty() and not os.environ.get("NO_COLOR"), 0.0

    def show(self, share, step, stage, f):
        text = (f"{STAGES[stage]} {min(share, 1):4.0%} step {step} kl {f['kl']:.4f} ppl {f['perplexity']:.2f}"
                f" (model {f['teacher_perplexity']:.2f}) CR {f['cr']:.2f}, decided {f['hard_cr']:.2f}, target {f['target_cr']:.2f}"
                f" {f['tokens_per_second'] / 1000:.1f}k tokens/s")
        if self.terminal:
            done = int(BAR * min(share, 1))
            self.stream.write(f"\r[{'#' * done}{'.' * (BAR - done)}] {text}\x1b[K")
        elif time.monotonic() - self.last < SECONDS_BETWEEN_LINES:
            return
        else:
            self.last = time.monotonic()
            self.stream.write(text + "\n")
        self.stream.flush()

    def close(self):
        if self.terminal:
            self.stream.write("\n")
