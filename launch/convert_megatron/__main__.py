"""accrete convert-megatron: NVIDIA's DMC checkpoints (Megatron-core, one file) to a Hugging Face directory, and back.

Run by the accrete program; Python's standard library is all it needs. docs/convert_megatron.md is its manual.
"""
import argparse
import re
import sys

import backward
import forward
from failure import Refused

OK, FAILED, USAGE = 0, 1, 2
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        sys.stderr.write(f"accrete convert-megatron: error: {message}\n")
        sys.exit(USAGE)


def size(text):
    """A number of bytes: 5GB, 512MiB, 1000."""
    match = re.fullmatch(r"(\d{1,15})\s*([A-Za-z]*)", text)
    if not match or match.group(2).upper() not in UNITS or int(match.group(1)) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 5GB or 512MiB")
    return int(match.group(1)) * UNITS[match.group(2).upper()]


def vocabulary(text):
    if not text.isdigit() or len(text) > 8:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens")
    return int(text)


def parse(arguments):
    parser = Parser(prog="accrete convert-megatron", description=__doc__.splitlines()[0])
    parser.add_argument("src", help="the .pt file or its checkpoint's folder; with --to-megatron a Hugging Face directory")
    parser.add_argument("dst", help="the directory to make; with --to-megatron the .pt file")
    parser.add_argument("--tokenizer", default="", help="tokenizer.model, tokenizer.json or a folder with one, copied into DST")
    parser.add_argument("--vocab-size", type=vocabulary, default=0, help="tokens in the vocabulary; the rows behind them are padding")
    parser.add_argument("--max-shard-size", dest="max_shard_bytes", type=size, default=size("5GB"), help="bytes of one safetensors file")
    parser.add_argument("--to-megatron", action="store_true", help="the other way round")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    try:
        (backward if options.to_megatron else forward).convert(options)
    except Refused as error:
        sys.stderr.write(f"accrete convert-megatron: error: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("accrete convert-megatron: error: stopped by a signal; nothing was written\n")
        return FAILED
    return OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
