"""A text of another domain from two Debian packages: Jane Austen's novels by chapter, the King James Bible by chapter.

python3 -m retrofit.literature r-cran-janeaustenr bible-kjv --output other.jsonl
The two are folders as `dpkg -x` leaves them (bible-kjv together with bible-kjv-text). Writes lines {"id", "title", "text"}.
"""
import argparse
import bz2
import json
import lzma
import pathlib
import re
import subprocess
import zlib

STRING = b"\x00\x04\x00\x09"  # R's serialization of an ASCII string: its flags, then its length and bytes
LONGEST_LINE, SHORTEST_BOOK, SHORTEST_DOCUMENT = 2000, 50_000, 1500


def r_objects(blob):
    """The objects of R's lazy-load database: each a length, perhaps a letter for its compression, and the compressed bytes."""
    at = 0
    while at < len(blob):
        size, kind = int.from_bytes(blob[at:at + 4], "big"), blob[at + 4:at + 5]
        begin = at + 5 if kind in (b"2", b"Z") else at + 4
        unpack = {b"2": bz2.BZ2Decompressor, b"Z": lzma.LZMADecompressor}.get(kind, zlib.decompressobj)()
        data = unpack.decompress(blob[begin:])
        if len(data) != size:
            raise ValueError(f"an object of {size} bytes at {at} unpacks to {len(data)}")
        yield data
        at = len(blob) - len(unpack.unused_data)


def strings(data):
    at = data.find(STRING)
    while at >= 0:
        size = int.from_bytes(data[at + 4:at + 8], "big")
        if size < LONGEST_LINE:
            yield data[at + 8:at + 8 + size].decode("utf-8", "replace")
        at = data.find(STRING, at + (8 + size if size < LONGEST_LINE else 4))


def novels(folder):
    """-> (name, text)"""
    blob = (folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    books = ["\n".join(strings(data)) for data in r_objects(blob)]
    return [(f"austen-{i}", book) for i, book in enumerate(books) if len(book) > SHORTEST_BOOK]


def bible(folder):
    command = [str(folder / "usr/bin/bible"), "-p", str(folder / "usr/lib"), "-l100000", "gen1:1-rev22:21"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def documents(austen, kjv):
    for name, book in novels(austen):
        for number, chapter in enumerate(re.split(r"\n(?=(?:CHAPTER|Chapter) )", book)):
            yield f"{name}#{number}", name, chapter
    for chapter in re.split(r"\n(?=\S[^\n]* 1\n)", bible(kjv)):
        yield "kjv " + chapter.strip().split("\n")[0], "kjv", chapter


def main():
    p = argparse.ArgumentParser(prog="retrofit.literature")
    p.add_argument("austen", type=pathlib.Path)
    p.add_argument("kjv", type=pathlib.Path)
    p.add_argument("--output", required=True)
    a = p.parse_args()
    with open(a.output, "w") as file:
        for name, title, text in documents(a.austen, a.kjv):
            if len(text.strip()) > SHORTEST_DOCUMENT:
                file.write(json.dumps({"id": name, "title": title, "text": text.strip()}) + "\n")


if __name__ == "__main__":
    main()
