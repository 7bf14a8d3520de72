"""megatron/ in a converted directory: what of the checkpoint has no place in Hugging Face's form, so that it can be converted back.

  megatron/source.json          args (plain values), iteration, checkpoint_version, names that were dropped, Vpad
  megatron/padding.safetensors  the tables' rows that are no tokens, under Megatron's names
"""
import contextlib
import json
import os

import safetensors
from names import EMBEDDING, OUTPUT
from tensor import Assembly

FOLDER, PLAIN = "megatron", (str, int, float, bool, type(None))


def plain(value):
    """Whether JSON can hold a value of args and give it back the same."""
    if isinstance(value, list):
        return all(isinstance(entry, PLAIN) for entry in value)
    return isinstance(value, PLAIN)


def padding_of(found, net):
    """{table: Assembly of its padding rows}; empty when there are none."""
    rows = {name: found[name].rows(net.vocab, net.padded_vocab) for name in (EMBEDDING, OUTPUT) if name in found}
    return {name: Assembly((tensor,), tensor.shape) for name, tensor in rows.items() if tensor.shape[0] > 0}


def write(folder, checkpoint, dropped, padding):
    os.mkdir(os.path.join(folder, FOLDER))
    args = {name: value for name, value in checkpoint["args"].items() if plain(value)}
    record = {"format": "accrete megatron source 1", "iteration": checkpoint.get("iteration"),
              "checkpoint_version": checkpoint.get("checkpoint_version"), "dropped_tensors": dropped, "args": args}
    with open(os.path.join(folder, FOLDER, "source.json"), "x", encoding="utf-8") as file:
        json.dump(record, file, indent=1, sort_keys=True)
        file.write("\n")
    if padding:
        safetensors.write_file(os.path.join(folder, FOLDER, "padding.safetensors"), padding, Silent())


def read(folder, files):
    """(source.json or None, {table: padding Tensor})"""
    record = os.path.join(folder, FOLDER, "source.json")
    if not os.path.exists(record):
        return None, {}
    padding = os.path.join(folder, FOLDER, "padding.safetensors")
    return safetensors.read_json(record), safetensors.read_file(padding, files) if os.path.exists(padding) else {}


class Silent(contextlib.nullcontext):
    def add(self, count, note):
        """Progress that nobody watches."""
