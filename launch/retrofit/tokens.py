"""JSONL or plain text -> token files (data.py says what they hold).

python3 -m retrofit.tokens MODEL FILE... --output STEM [--part-tokens N]     writes STEM-000.bin, STEM-001.bin ...
Each line's "text", or a whole .txt file, is a document; it ends with the model's end-of-text token, or, for chats ("chat": true), with nothing.
"""
import argparse
import json
import pathlib

import numpy as np

from retrofit import data, text

PIECE = 2000  # documents tokenized at once


def documents(paths):
    """-> (text, whether an end-of-text token follows)"""
    for path in paths:
        if path.suffix == ".jsonl":
            for line in open(path):
                fields = json.loads(line)
                yield fields["text"], not fields.get("chat", False)
        else:
            yield path.read_text(errors="replace"), True


def pieces(items):
    piece = []
    for item in items:
        piece.append(item)
        if len(piece) == PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def encode(tokenizer, items, end_id):
    """-> uint16 arrays, one for each piece of documents"""
    for piece in pieces(items):
        encoded = tokenizer.encode_batch([content for content, _ in piece], add_special_tokens=False)
        out = []
        for one, (_, ends) in zip(encoded, piece):
            out += [*one.ids, *([end_id] if ends else []), data.BREAK]
        yield np.array(out, np.uint16)


class Parts:
    def __init__(self, stem, limit):
        self.stem, self.limit, self.held, self.count, self.total = stem, limit, [], 0, 0

    def add(self, array):
        self.held.append(array)
        self.total += len(array)
        if sum(map(len, self.held)) >= self.limit:
            self.write()

    def write(self):
        if self.held:
            np.concatenate(self.held).tofile(f"{self.stem}-{self.count:03d}.bin")
            self.held, self.count = [], self.count + 1


def main():
    p = argparse.ArgumentParser(prog="retrofit.tokens")
    p.add_argument("model")
    p.add_argument("files", nargs="+", type=pathlib.Path)
    p.add_argument("--output", required=True)
    p.add_argument("--part-tokens", type=int, default=26_000_000)
    p.add_argument("--end-token", default="<|endoftext|>")
    a = p.parse_args()
    tokenizer = text.tokenizer_of(a.model)
    if tokenizer.get_vocab_size() > data.BREAK:
        p.error("the vocabulary has more than 65535 tokens")
    parts = Parts(a.output, a.part_tokens)
    for array in encode(tokenizer, documents(a.files), tokenizer.token_to_id(a.end_token)):
        parts.add(array)
    parts.write()
    print(f"{parts.total} tokens in {parts.count} files")


if __name__ == "__main__":
    main()
