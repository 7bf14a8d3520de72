"""A small DMC checkpoint in Megatron's form that really decides, with a tokenizer of bytes, for end-to-end tests without a fetched model."""
import json
import pathlib
import struct
import sys

import support

sys.path.insert(0, str(support.ROOT / "tests" / "launch" / "convert_megatron"))
from megatron_files import Network  # noqa: E402

DECISION_SCALE = 60.0  # makes k[D-1] lie on both sides of the offset 5


def scaled_bf16(row, factor):
    """A row of bf16 numbers, each times `factor`."""
    numbers = (struct.unpack("<f", b"\0\0" + row[i:i + 2])[0] * factor for i in range(0, len(row), 2))
    return b"".join(struct.pack("<f", number)[2:] for number in numbers)


def deciding_network(groups=2, layers=4):
    """A Network whose keys' last components spread around the offset, each head in its own way."""
    network = Network(groups=groups, layers=layers)
    row = network.hidden * 2
    queries = network.heads // groups * network.d
    for layer in range(layers):
        tensor = network.model[f"decoder.layers.{layer}.self_attention.linear_qkv.weight"]
        data = bytearray(tensor.data)
        for group in range(groups):
            begin = (group * (queries + 2 * network.d) + queries + network.d - 1) * row
            data[begin:begin + row] = scaled_bf16(data[begin:begin + row], DECISION_SCALE * (1 + layer + group))
        tensor.data = bytes(data)
    return network


def byte_tokenizer(path):
    """tokenizer.json with a token for each byte."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {byte: chr(byte) for byte in visible}
    names.update({byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in names)})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": level,
                 "post_processor": None, "decoder": level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False, "vocab": {names[byte]: byte for byte in range(256)}, "merges": []}}
    pathlib.Path(path).write_text(json.dumps(tokenizer), encoding="utf-8")
    return path


def converted(folder):
    """Converts such a checkpoint with the accrete program; the Hugging Face directory."""
    folder = pathlib.Path(folder)
    source = deciding_network().save(folder / "model_optim_rng.pt")
    code, _, errors = support.run("convert-megatron", source, folder / "hf", "--tokenizer", byte_tokenizer(folder / "tokenizer.json"),
                                  "--max-shard-size", "100kB")
    if code != 0:
        raise AssertionError(errors)
    return folder / "hf"
