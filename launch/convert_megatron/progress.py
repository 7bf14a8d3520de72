"""Progress on stderr: a bar that redraws itself on a terminal, a line every few seconds elsewhere. Of the same form as launch/terminal."""
import os
import sys
import time

BAR, REDRAW, LOG_EVERY = 30, 0.1, 5.0


class Progress:
    def __init__(self, label, total):
        self.label, self.total, self.done = label, max(total, 1), 0
        self.terminal = sys.stderr.isatty()
        self.colour = self.terminal and not os.environ.get("NO_COLOR")
        self.begun = self.last = time.monotonic()

    def add(self, count, note):
        """`count` more bytes were written."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self.last < (REDRAW if self.terminal else LOG_EVERY):
            return
        self.last = now
        rate = self.done / max(now - self.begun, 1e-9) / 1e6
        figures = f"{self.done / 1e9:.2f}/{self.total / 1e9:.2f} GB"
        if self.terminal:
            filled = self.done * BAR // self.total
            bar = "[" + "#" * filled + "-" * (BAR - filled) + "]"
            bar = f"\033[36m{bar}\033[0m" if self.colour else bar
            sys.stderr.write(f"\r{self.label} {bar} {figures} {rate:.0f} MB/s {note}\033[K")
        else:
            sys.stderr.write(f"{self.label}: {figures} ({self.done * 100 // self.total} %), {rate:.0f} MB/s\n")
        sys.stderr.flush()

    def end(self):
        if self.terminal:
            sys.stderr.write("\n")
