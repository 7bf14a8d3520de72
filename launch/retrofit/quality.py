"""What compression costs a model, measured through the engine's own caches: perplexity, slots, chats side by side, tokens until a pool is full.

python3 -m retrofit.quality MODEL --variant 'CR 4=--adapter run/model' --text held-out=FILE --text other=FILE --chats prompts.txt --output DIR
The unmodified model comes first; each --variant is a name and further flags of accrete. Leaves quality.json, quality.md and chats.md in DIR, and
for each variant and the first text its slot profile with the heat map. Needs Python alone, and the program: --accrete, ACCRETE_BIN or the PATH.
"""
import argparse
import json
import math
import os
import pathlib
import shlex
import subprocess
import sys
from typing import NamedTuple

BASE = "unmodified"
PAGE_SLOTS = 16


class Sizes(NamedTuple):
    pool_pages: int
    length: int      # of a window in tokens
    max_tokens: int  # of each text


class QualityError(Exception):
    pass


def named(argument):
    name, separator, value = argument.partition("=")
    if not separator or not name or not value:
        raise argparse.ArgumentTypeError(f"{argument!r} is not NAME=VALUE")
    return name, value


class Engine:
    def __init__(self, program, model, common):
        self.program, self.model, self.common = program, model, common

    def run(self, command, flags, *rest):
        line = [self.program, *command, self.model, *self.common, *flags, *map(str, rest)]
        try:
            done = subprocess.run(line, capture_output=True, text=True)
        except OSError as error:
            raise QualityError(f"--accrete {self.program}: {error.strerror}") from error
        if done.returncode != 0:
            raise QualityError(f"{shlex.join(line)}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
        return done.stdout


def pages_at(profile, tokens):
    """Pages that a sequence of so many tokens takes, from the mean slots of each head; beyond the longest length its ratio is kept."""
    lengths, slots = [0] + profile["lengths"], profile["mean_slots"]
    flat = [[0.0] * (profile["layers"] * profile["kv_heads"])] + [[head for layer in at for head in layer] for at in slots]
    if tokens >= lengths[-1]:
        heads = [head * tokens / lengths[-1] for head in flat[-1]]
    else:
        right = next(i for i, length in enumerate(lengths) if length > tokens)
        share = (tokens - lengths[right - 1]) / (lengths[right] - lengths[right - 1])
        heads = [a + (b - a) * share for a, b in zip(flat[right - 1], flat[right])]
    return sum(math.ceil(head / PAGE_SLOTS) for head in heads)


def tokens_until_full(profile, pages):
    low, high = 0, 1
    while pages_at(profile, high) <= pages:
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if pages_at(profile, middle) <= pages else (low, middle)
    return low


def plain_text(name, path, folder):
    """A file of text as it is; of JSON lines ("text", as corpus.py writes them) the documents one after another."""
    if not path.endswith(".jsonl"):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{name}.txt"
    with open(path) as lines, open(out, "w") as text:
        for number, line in enumerate(lines, 1):
            try:
                text.write(json.loads(line)["text"] + "\n\n")
            except (ValueError, TypeError, KeyError) as error:
                raise QualityError(f"--text {name}={path}: line {number} has no \"text\"") from error
    return str(out)


def measure(engine, flags, texts, folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)
    result = {"flags": flags, "texts": {}}
    for name, path in texts:
        out = folder / f"{name}.json"
        engine.run(["eval", "perplexity"], flags, "--text", path, "--max-model-len", sizes.length, "--max-tokens", sizes.max_tokens,
                   "--output-json", out)
        result["texts"][name] = json.loads(out.read_text())
    out = folder / "profile.json"
    engine.run(["profile"], flags, "--text", texts[0][1], "--max-model-len", sizes.length, "--max-tokens", sizes.max_tokens, "--out", out)
    result["tokens_until_full"] = tokens_until_full(json.loads(out.read_text()), sizes.pool_pages)
    return result


def table(results, texts, pool_pages):
    base = results[BASE]
    heads = [f"{name}: perplexity | mean slots | CR" for name, _ in texts]
    lines = [f"| | {' | '.join(heads)} | tokens until {pool_pages} pages are full |", "|" + " --- |" * (2 + 3 * len(texts))]
    for variant, result in results.items():
        cells = []
        for name, _ in texts:
            found = result["texts"][name]
            change = found["perplexity"] / base["texts"][name]["perplexity"] - 1
            cells += [f"{found['perplexity']:.3f}" + ("" if variant == BASE else f" ({100 * change:+.1f} %)"), f"{found['mean_slots']:.0f}",
                      f"{found['compression_ratio']:.2f}"]
        lines.append(f"| {variant} | {' | '.join(cells)} | {result['tokens_until_full']:,} |")
    tokens = ", ".join(f"{name} {base['texts'][name]['tokens']:,} tokens" for name, _ in texts)
    return "\n".join(lines) + f"\n\n{tokens}; {base['texts'][texts[0][0]]['model']}, {base['texts'][texts[0][0]]['device']}.\n"


def chats(engine, variants, prompts, max_tokens):
    parts = []
    for number, prompt in enumerate(prompts, 1):
        parts.append(f"## {number}. {prompt}\n")
        for name, flags in variants:
            answer = engine.run(["generate"], flags, "--prompt", prompt, "--max-tokens", max_tokens, "--max-model-len", 2048).strip()
            parts.append(f"**{name}**\n\n" + "\n".join("> " + line for line in answer.splitlines()) + "\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(prog="retrofit.quality", description="quality and size of a compressed model beside the unmodified one")
    parser.add_argument("model")
    parser.add_argument("--variant", type=named, action="append", default=[], metavar="NAME=FLAGS")
    parser.add_argument("--text", type=named, action="append", required=True, metavar="NAME=FILE")
    parser.add_argument("--chats", type=pathlib.Path, metavar="FILE", help="a prompt a line, answered greedily")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--accrete", default=os.environ.get("ACCRETE_BIN", "accrete"), metavar="PROGRAM")
    parser.add_argument("--common", default="", metavar="FLAGS", help="for every run")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--max-tokens", type=int, default=65536, help="of each text")
    parser.add_argument("--chat-tokens", type=int, default=160)
    parser.add_argument("--pool-pages", type=int, default=4096, help=f"pages of {PAGE_SLOTS} slots")
    arguments = parser.parse_args()
    for name, path in arguments.text:
        if not os.path.isfile(path):
            parser.error(f"--text {name}={path}: no such file")
    if arguments.chats and not arguments.chats.is_file():
        parser.error(f"--chats {arguments.chats}: no such file")
    engine = Engine(arguments.accrete, arguments.model, shlex.split(arguments.common))
    variants = [(BASE, [])] + [(name, shlex.split(flags)) for name, flags in arguments.variant]
    texts = [(name, plain_text(name, path, arguments.output)) for name, path in arguments.text]
    results = {}
    for number, (name, flags) in enumerate(variants):
        print(f"quality: {name}", file=sys.stderr)
        results[name] = measure(engine, flags, texts, arguments.output / str(number),
                                Sizes(arguments.pool_pages, arguments.max_model_len, arguments.max_tokens))
    text = table(results, texts, arguments.pool_pages)
    (arguments.output / "quality.json").write_text(json.dumps({"pool_pages": arguments.pool_pages, "variants": results}, indent=1) + "\n")
    (arguments.output / "quality.md").write_text(text)
    if arguments.chats:
        prompts = [line.strip() for line in arguments.chats.read_text().splitlines() if line.strip()]
        (arguments.output / "chats.md").write_text(chats(engine, variants, prompts, arguments.chat_tokens))
    print(text, end="")


if __name__ == "__main__":
    try:
        main()
    except QualityError as error:
        print(f"quality: error: {error}", file=sys.stderr)
        sys.exit(1)
