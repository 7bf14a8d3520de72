"""Token files and how batches are packed from them.

A token file is a sequence of uint16: documents, each followed by BREAK, which is no token. Rows of T tokens hold documents one
after another; a document that does not fit goes on in the next row, and every piece counts as a sequence of its own: its
positions begin at 0, it attends to nothing before it, and its first token appends, as in the engine.
"""
import glob
import lzma
import pathlib

import numpy as np
import torch

BREAK = 65535
TEXT = (".txt", ".json", ".jsonl", ".md")


class DataError(Exception):
    pass


def read_tokens(pattern):
    """All files that the pattern matches, as one array; .xz is unpacked."""
    names = sorted(glob.glob(pattern))
    if not names:
        raise DataError(f"{pattern}: no such token file")
    return np.concatenate([read_file(pathlib.Path(name)) for name in names])


def read_file(path):
    if path.suffix in TEXT:
        raise DataError(f"{path}: text, and no token file; `python3 -m retrofit.tokens` makes token files of it")
    blob = path.read_bytes()
    if path.suffix == ".xz":
        try:
            blob = lzma.decompress(blob)
        except (lzma.LZMAError, EOFError) as error:
            raise DataError(f"{path}: {error}") from None
    if len(blob) % 2:
        raise DataError(f"{path}: {len(blob)} bytes are no row of 16-bit tokens")
    return np.frombuffer(blob, np.uint16)


class Stream:
    """An endless row of documents in a random order, a new one each time round."""

    def __init__(self, tokens, seed):
        self.tokens, self.seed = tokens, seed
        ends = np.flatnonzero(tokens == BREAK)
        begins = np.concatenate([[0], ends[:-1] + 1])
        keep = ends - begins >= 8
        self.spans = np.stack([begins[keep], ends[keep]], 1)
        if not len(self.spans):
            raise DataError("a token file holds no documents")
        self.seek({"round": 0, "index": 0, "offset": 0})

    def state(self):
        return {"round": self.round, "index": self.index, "offset": self.offset}

    def seek(self, state):
        self.round, self.index, self.offset = state["round"], state["index"], state["offset"]
        self.order = np.random.default_rng([self.seed, self.round]).permutation(len(self.spans))

    def row(self, length):
        """-> tokens [length] int64, starts [length] bool"""
        tokens, starts, at = np.empty(length, np.int64), np.zeros(length, bool), 0
        while at < length:
            begin, end = self.spans[self.order[self.index]]
            piece = self.tokens[begin + self.offset:end][:length - at]
            tokens[at:at + len(piece)] = piece
            starts[at] = True
            at += len(piece)
            self.offset += len(piece)
            if begin + self.offset >= end:
                self.advance()
        return tokens, starts

    def advance(self):
        self.index, self.offset = self.index + 1, 0
        if self.index == len(self.spans):
            self.seek({"round": self.round + 1, "index": 0, "offset": 0})


class Mixture:
    """Rows of several streams at given shares."""

    def __init__(self, sources, seed):
        """sources: [(tokens, share)]"""
        self.streams = [Stream(tokens, seed + i) for i, (tokens, _) in enumerate(sources)]
        total = sum(share for _, share in sources)
        self.shares = [share / total for _, share in sources]
        self.taken = [0] * len(sources)
        self.beginning = self.state()

    def batch(self, rows, length):
        """-> tokens [B, T] int64, starts [B, T] bool, targets [B, T] int64 (IGNORED after a document's last token)"""
        parts = [self.next_stream().row(length) for _ in range(rows)]
        tokens, starts = (torch.from_numpy(np.stack(x)) for x in zip(*parts))
        return tokens, starts, targets_of(tokens, starts)

    def next_stream(self):
        behind = [share * (1 + sum(self.taken)) - taken for share, taken in zip(self.shares, self.taken)]
        chosen = behind.index(max(behind))
        self.taken[chosen] += 1
        return self.streams[chosen]

    def state(self):
        return {"taken": list(self.taken), "streams": [s.state() for s in self.streams]}

    def seek(self, state):
        self.taken = list(state["taken"])
        for stream, at in zip(self.streams, state["streams"]):
            stream.seek(at)


def targets_of(tokens, starts):
    from retrofit.loss import IGNORED
    following = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], IGNORED)], 1)
    ends = torch.cat([starts[:, 1:], torch.ones_like(starts[:, :1])], 1)
    return torch.where(ends, IGNORED, following)


def named(text):
    """[NAME=]FILES -> (name, files)"""
    name, _, files = text.rpartition("=")
    return name or "held-out", files


def parse_source(flag, text, vocab):
    """FILES or FILES=SHARE -> (tokens, share)"""
    pattern, _, share = text.partition("=")
    try:
        share = float(share or 1)
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise DataError(f"{flag} {text}: the share after = must be a number above 0")
    tokens = read_tokens(pattern)
    known = tokens[tokens != BREAK]
    if len(known) and known.max() >= vocab:
        raise DataError(f"{pattern}: token {known.max()} is outside the model's vocabulary of {vocab}; the files are of another tokenizer")
    return tokens, share
