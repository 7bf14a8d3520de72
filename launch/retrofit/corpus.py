"""Makes a corpus from unpacked documentation packages: HTML, manual pages, Info, POD, plain text and dictionaries become JSONL.

python3 -m retrofit.corpus FOLDER... --output DIR [--other NAME ...]
FOLDER: one a package, as `dpkg -x` leaves it. Writes DIR/train.jsonl, DIR/held-out.jsonl (every 50th document by its hash) and
DIR/other.jsonl (the packages of --other, a domain never trained on), lines {"id", "title", "text"}. Paragraphs that stood in an
earlier document are dropped, and so are documents that are short or hardly English prose. Needs lxml.
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import re
import sys

from retrofit import corpus_html

COMMON = set("the of and to a in is that for it as with be on by this are or from an at which you if not can when will has have but".split())
WORD = re.compile(r"[A-Za-z']+")
LANGUAGE = re.compile(r"[/.](?:ar|bg|bn|bs|ca|cs|da|de|de-ch|el|eo|es|et|eu|fa|fi|fr|fr-FR|gl|gu|he|hi|hr|hu|id|is|it|ja|kn|ko|lt|lv|ml|mr|nb|nb-NO|"
                      r"nl|nn|oc|pa|pl|pt|pt_BR|pt_PT|pt-BR|ro|ru|sk|sl|sq|sr|sr@latin|sv|ta|te|th|tr|uk|vi|zh|zh_CN|zh_HK|zh_TW|zh-cn|zh-tw|[a-z]{2}-[A-Z]{2})"
                      r"(?:[/.]|$)")
ENGLISH = re.compile(r"[/.]en(?:-US|-GB)?[/.]")
HELD_OUT_EVERY = 50


def read(path):
    blob = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        blob = gzip.decompress(blob)
    return blob


def plain_blocks(text):
    return [re.sub(r"[ \t]+\n", "\n", block).strip("\n") for block in re.split(r"\n\s*\n", text)]


def unroff(text):
    """A manual page's source without its macros: crude, good enough for prose."""
    out = []
    for line in text.split("\n"):
        if line.startswith((".SH", ".SS")):
            out += ["", line[3:].strip().strip('"'), ""]
        elif line.startswith((".PP", ".P", ".LP", ".IP", ".TP", ".HP", ".RS", ".RE", ".sp")):
            out.append("")
        elif re.match(r"\.(B|I|BR|IR|RB|RI|BI|IB|SM) ", line):
            joined = line.split(" ", 1)[1]
            out.append(joined.replace('"', "") if line[2] == " " else re.sub(r'"([^"]*)"|\s+', lambda m: m.group(1) or "", joined))
        elif not line.startswith((".", "'")):
            out.append(line)
    text = re.sub(r"\\f(?:\[[^]]*\]|\(..|.)|\\&|\\/|\\,|\\c|\\%", "", "\n".join(out))
    text = text.replace("\\-", "-").replace("\\(aq", "'").replace("\\(bu", "*").replace("\\e", "\\").replace("\\ ", " ").replace("\\(em", " - ")
    return re.sub(r"\\\(..|\\\[[^]]*\]|\\s[-+]?\d", "", text)


def unpod(text):
    text = re.sub(r"^=(?:head\d|item)\s+(.*)$", r"\1", text, flags=re.M)
    text = re.sub(r"^=\w+.*$", "", text, flags=re.M)
    for _ in range(3):
        text = re.sub(r"[A-Z]<([^<>|]*?)(?:\|[^<>]*)?>", r"\1", text)
    return text


def dictionary_documents(name, text):
    """A dict file's entries, forty to a document."""
    entries = re.split(r"\n(?=\S)", text)
    for begin in range(0, len(entries), 40):
        yield f"{name}#{begin}", "dictionary", [re.sub(r"\n\s+", "\n  ", e.strip()) for e in entries[begin:begin + 40]]


def documents_of_file(path, name):
    """-> (id, title, blocks) of each document in a file"""
    plain = path.name.removesuffix(".gz")
    if plain.endswith((".html", ".htm", ".xhtml", ".page", ".docbook", ".xml")):
        title, blocks = corpus_html.blocks_of(read(path))
        yield name, title, blocks
        return
    if not plain.endswith((".dict.dz", ".txt", ".pod", ".info")) and not re.search(r"\.[1-8]\w*$|\.info-\d+$|/fortunes/[\w-]+$|/descript/", str(path)):
        return
    text = read(path).decode("utf-8", "replace")
    if plain.endswith(".dict.dz"):
        yield from dictionary_documents(name, text)
    elif plain.endswith(".pod"):
        yield name, path.stem, plain_blocks(unpod(text))
    elif re.search(r"\.[1-8]\w*$", plain) and "/man/" in str(path):
        yield name, plain.rsplit(".", 1)[0], plain_blocks(unroff(text))
    elif "/fortunes/" in str(path):
        yield name, path.stem, [block.strip() for block in text.split("\n%\n")]
    else:
        yield name, path.stem, [b for b in plain_blocks(text.replace("\x1f", "\n")) if not b.startswith(("Tag Table", "File: "))]


class Sieve:
    """Keeps what is new and reads like English."""

    def __init__(self):
        self.seen, self.dropped = set(), 0

    def fresh(self, blocks):
        kept = []
        for block in blocks:
            if len(block) < 48:
                kept.append(block)
                continue
            key = hashlib.blake2b(re.sub(r"\s+", " ", block).encode(), digest_size=8).digest()
            if key not in self.seen:
                self.seen.add(key)
                kept.append(block)
        return kept

    def text(self, blocks):
        """-> the document's text, or None"""
        text = "\n\n".join(block for block in self.fresh(blocks) if block.strip())
        words = WORD.findall(text)
        if len(words) < 80 or len(text) > 2_000_000:
            return None
        common = sum(word.lower() in COMMON for word in words) / len(words)
        plain = sum(c.isascii() for c in text) / len(text)
        letters = sum(map(len, words)) / len(text)
        if common < 0.17 or plain < 0.97 or letters < 0.55:
            self.dropped += 1
            return None
        return text


def documents(folder):
    for path in sorted(folder.rglob("*")):
        name = f"{folder.name}/{path.relative_to(folder)}"
        if not path.is_file() or path.is_symlink() or path.stat().st_size > 40_000_000:
            continue
        if (LANGUAGE.search(name) and not ENGLISH.search(name)) or re.search(r"genindex|changelog|/_sources/|copyright|/src/|-src\.html", name, re.I):
            continue
        try:
            yield from documents_of_file(path, name)
        except (OSError, EOFError, ValueError) as error:
            print(f"corpus: {name}: {error}", file=sys.stderr)


def main():
    p = argparse.ArgumentParser(prog="retrofit.corpus")
    p.add_argument("folders", nargs="+", type=pathlib.Path)
    p.add_argument("--output", required=True, type=pathlib.Path)
    p.add_argument("--other", action="append", default=[], help="packages of the domain that is never trained on")
    p.add_argument("--limit", type=int, default=24_000_000, help="most characters of one package")
    a = p.parse_args()
    a.output.mkdir(parents=True, exist_ok=True)
    files = {name: open(a.output / f"{name}.jsonl", "w") for name in ("train", "held-out", "other")}
    sieve, sizes = Sieve(), dict.fromkeys(files, 0)
    for folder in a.folders:
        taken = 0
        for name, title, blocks in documents(folder):
            text = sieve.text(blocks)
            if text is None:
                continue
            number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
            part = "other" if folder.name in a.other else "train" if number % HELD_OUT_EVERY else "held-out"
            files[part].write(json.dumps({"id": name, "title": title, "text": text}) + "\n")
            sizes[part] += len(text)
            taken += len(text)
            if taken > a.limit:
                break
        print(f"corpus: {folder.name}: {taken / 1e6:.1f} M characters", file=sys.stderr, flush=True)
    print("corpus: " + ", ".join(f"{part} {size / 1e6:.1f} M" for part, size in sizes.items()), file=sys.stderr)


if __name__ == "__main__":
    main()
