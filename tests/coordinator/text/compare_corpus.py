#!/usr/bin/env python3
"""Tokenizes a large corpus with the tokenizers package and with tokenize_lines, and counts the differences.

  compare_corpus.py TOKENIZE_LINES MODEL.gguf [--cases 20000]

needs: tokenizers, gguf. The vocabulary of the GGUF (byte-level BPE) is run under several pre-tokenizers: SmolLM2's, Llama 3's, GPT-2's, and
as GGUF metadata itself.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from gguf import GGUFReader
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from corpus import corpus  # noqa: E402

LLAMA_3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PRE_TOKENIZERS = {
    "smollm2": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
    "llama-3": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
    "gpt-2": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
}


def tokenizer_json(path, pre, ignore_merges):
    fields = GGUFReader(path).fields
    strings = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]  # noqa: E731
    tokens, merges = strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges")
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, t in enumerate(tokens) if types[i] == 3]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": pre,
            "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges,
                      "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}}


def ours(binary, path, texts):
    lines = "\n".join(json.dumps(t) for t in texts) + "\n"
    done = subprocess.run([binary, "--json", path], input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tokenize_lines")
    parser.add_argument("gguf")
    parser.add_argument("--cases", type=int, default=20000)
    args = parser.parse_args()
    texts, failed = corpus(args.cases), 0
    for name, pre in PRE_TOKENIZERS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/tokenizer.json"
            pathlib.Path(path).write_text(json.dumps(tokenizer_json(args.gguf, pre, name == "llama-3")))
            oracle = Tokenizer.from_file(path)
            found = ours(args.tokenize_lines, path, texts)
        wrong_ids = wrong_text = 0
        for text, (ids, decoded) in zip(texts, found, strict=True):
            wanted = oracle.encode(text).ids
            if ids != wanted:
                wrong_ids += 1
                if wrong_ids <= 5:
                    print(f"{name}: {text!r}\n  ours   {ids}\n  wanted {wanted}")
            wrong_text += decoded != oracle.decode(wanted, skip_special_tokens=False)
        print(f"{name}: {len(texts)} texts, {wrong_ids} with other ids, {wrong_text} decoded otherwise")
        failed += wrong_ids + wrong_text
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
