#!/usr/bin/env python3
"""grid_test.py T P: greedy tokens of a server of T x P ranks under mpirun equal those of one rank.

The reference of one rank is computed once and kept in GRID_REFERENCE; `grid_test.py reference` makes it.
"""
import json
import os
import pathlib
import sys
import unittest

import support

PROMPTS = ["The capital of France is", "Once upon a time, in a village by the sea,", "def fibonacci(n):\n", "Die drei größten Städte Europas sind"]
TOKENS = 24
REFERENCE = pathlib.Path(os.environ.get("GRID_REFERENCE", "grid_reference.json"))


def answers_of(server):
    """For each prompt the greedy token ids and text; all prompts at once, so that they share batches."""
    answer = server.complete(PROMPTS, TOKENS, logprobs=0, ignore_eos=True)
    choices = sorted(answer["choices"], key=lambda choice: choice["index"])
    return [{"text": choice["text"], "tokens": choice["logprobs"]["tokens"]} for choice in choices]


class Grid(unittest.TestCase):
    shape = (1, 1)

    def test_tokens_equal_one_rank(self):
        tensor, pipeline = self.shape
        with support.serve("-tp", tensor, "-pp", pipeline) as server:
            server.wait_healthy()
            self.assertEqual(len(server.workers()), tensor * pipeline)
            answers = answers_of(server)
        if REFERENCE.exists():
            self.assertEqual(answers, json.loads(REFERENCE.read_text()))
        else:
            self.assertEqual(self.shape, (1, 1), f"no reference at {REFERENCE}: run grid_test.py reference first")
        self.assertEqual([len(a["tokens"]) for a in answers], [TOKENS] * len(PROMPTS))


def make_reference():
    support.need_model()
    with support.serve() as server:
        REFERENCE.write_text(json.dumps(answers_of(server.wait_healthy())))


if __name__ == "__main__":
    if sys.argv[1:] == ["reference"]:
        make_reference()
    else:
        Grid.shape = (int(sys.argv[1]), int(sys.argv[2]))
        del sys.argv[1:]
        support.main()
