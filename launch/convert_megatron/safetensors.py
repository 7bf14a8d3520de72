"""safetensors files in pieces: writing Assemblies, sharded with an index as Hugging Face does, and finding Tensors in such a directory."""
import json
import os
import struct

from failure import Refused
from tensor import ITEM_BYTES, Tensor

MOST_HEADER = 100_000_000
INDEX = "model.safetensors.index.json"


def header_bytes(assemblies):
    """The file's beginning for {name: Assembly}: length, JSON padded to 8 bytes."""
    table, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, assembly in assemblies.items():
        table[name] = {"dtype": assembly.dtype, "shape": list(assembly.shape), "data_offsets": [offset, offset + assembly.nbytes]}
        offset += assembly.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_file(path, assemblies, progress):
    """One file of {name: Assembly}; `progress.add(bytes)` as they are written."""
    with open(path, "xb") as file:
        file.write(header_bytes(assemblies))
        for name, assembly in assemblies.items():
            for piece in assembly.pieces():
                file.write(piece)
                progress.add(len(piece), name)
        file.flush()
        os.fsync(file.fileno())


def shards_of(assemblies, most_bytes):
    """[{name: Assembly}], each of at most `most_bytes` unless one tensor alone is larger; order is kept."""
    shards, size = [{}], 0
    for name, assembly in assemblies.items():
        if shards[-1] and size + assembly.nbytes > most_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = assembly
        size += assembly.nbytes
    return shards


def write_directory(folder, assemblies, most_bytes, progress):
    """model.safetensors, or model-0000x-of-0000y.safetensors with their index."""
    shards = shards_of(assemblies, most_bytes)
    if len(shards) == 1:
        write_file(os.path.join(folder, "model.safetensors"), shards[0], progress)
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_file(os.path.join(folder, name), shard, progress)
        weight_map.update(dict.fromkeys(shard, name))
    total = sum(assembly.nbytes for assembly in assemblies.values())
    with open(os.path.join(folder, INDEX), "x", encoding="utf-8") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file, indent=2)
        file.write("\n")


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path}: not a JSON object")
    return value


def read_file(path, files):
    """{name: Tensor} of one file, which stays open in `files` (a contextlib.ExitStack)."""
    try:
        file = files.enter_context(open(path, "rb"))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    size = os.fstat(file.fileno()).st_size
    length = struct.unpack("<Q", (file.read(8) + b"\xff" * 8)[:8])[0]
    if length > min(MOST_HEADER, size - 8):
        raise Refused(f"{path}: not a safetensors file, or cut short")
    try:
        table = json.loads(file.read(length))
        return {name: _tensor(file, 8 + length, entry, size) for name, entry in table.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(f"{path}: its table of tensors is damaged") from None


def _tensor(file, start, entry, size):
    begin, end = entry["data_offsets"]
    tensor = Tensor(file, start + begin, entry["dtype"], tuple(entry["shape"]))
    if not all(type(n) is int and n >= 0 for n in (begin, end, *tensor.shape)) or tensor.dtype not in ITEM_BYTES:
        raise ValueError
    if end - begin != tensor.nbytes or start + end > size:
        raise ValueError
    return tensor


def read_directory(folder, files):
    """{name: Tensor} of a Hugging Face directory."""
    single, index = os.path.join(folder, "model.safetensors"), os.path.join(folder, INDEX)
    if os.path.exists(single):
        return read_file(single, files)
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) and "/" not in name for name in weight_map.values()):
        raise Refused(f"{index}: weight_map is missing or damaged")
    found = {}
    for name in sorted(set(weight_map.values())):
        found.update(read_file(os.path.join(folder, name), files))
    return found
