"""Writes a checkpoint as torch.save does: data.pkl in protocol 2, one uncompressed, 64-byte aligned zip entry a tensor.

The same input gives the same bytes: fixed dates, keys counted from 0 in the order of the tensors.
"""
import collections
import struct
import zipfile

from torch_pickle import STORAGES, Global, Namespace

ALIGNMENT = 64
LOCAL_HEADER_BYTES, ZIP64_EXTRA_BYTES = 30, 20
DATE = (1980, 1, 1, 0, 0, 0)
STORAGE_OF = {dtype: name for name, dtype in STORAGES.items()}


class Pickle:
    """Protocol 2 of the values that a checkpoint holds; `tensors` collects what has a shape and is not written here."""

    def __init__(self):
        self.out = bytearray(b"\x80\x02")
        self.tensors = []

    def finish(self):
        return bytes(self.out) + b"."

    def put(self, value):
        """Appends a value: None, bool, int, float, str, list, tuple, dict, OrderedDict, Namespace, Global, ModelType, or an Assembly."""
        if value is None or isinstance(value, bool):
            self.out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif isinstance(value, int):
            self._put_int(value)
        elif isinstance(value, float):
            self.out += b"G" + struct.pack(">d", value)
        elif isinstance(value, str):
            text = value.encode("utf-8", "surrogatepass")
            self.out += b"X" + struct.pack("<I", len(text)) + text
        elif isinstance(value, (list, tuple)):
            self._put_sequence(value)
        elif isinstance(value, dict):
            self._put_dict(value)
        elif isinstance(value, Global):
            self.out += f"c{value.module}\n{value.name}\n".encode()
        else:
            self._put_tensor(value)

    def _put_int(self, value):
        if -1 << 31 <= value < 1 << 31:
            self.out += b"J" + struct.pack("<i", value)
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.out += b"\x8a" + bytes([len(data)]) + data

    def _put_sequence(self, values):
        self.out += b"]" if isinstance(values, list) else b""
        self.out += b"("
        for value in values:
            self.put(value)
        self.out += b"e" if isinstance(values, list) else b"t"

    def _put_dict(self, values):
        if isinstance(values, Namespace):
            self.out += b"cargparse\nNamespace\n)\x81"
        if isinstance(values, collections.OrderedDict):
            self.out += b"ccollections\nOrderedDict\n)R"
        else:
            self.out += b"}"
        self.out += b"("
        for key, value in values.items():
            self.put(key)
            self.put(value)
        self.out += b"u"
        if isinstance(values, Namespace):
            self.out += b"b"

    def _put_tensor(self, tensor):
        count, strides = 1, []
        for size in reversed(tensor.shape):
            strides.insert(0, count)
            count *= size
        self.put(Global("torch._utils", "_rebuild_tensor_v2"))
        self.out += b"("
        self.put(("storage", Global("torch", STORAGE_OF[tensor.dtype]), str(len(self.tensors)), "cpu", count))
        self.out += b"Q"
        for value in (0, tuple(tensor.shape), tuple(strides), False, collections.OrderedDict()):
            self.put(value)
        self.out += b"tR"
        self.tensors.append(tensor)


def add_entry(archive, name, size, pieces):
    """One entry whose bytes begin at a multiple of ALIGNMENT, as torch.load(mmap=True) wants them."""
    info = zipfile.ZipInfo(name, DATE)
    start = archive.fp.tell() + LOCAL_HEADER_BYTES + ZIP64_EXTRA_BYTES + len(name.encode()) + 4
    padding = -start % ALIGNMENT
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    info.file_size = size
    with archive.open(info, "w", force_zip64=True) as entry:
        for piece in pieces:
            entry.write(piece)


def write(path, checkpoint, progress):
    """`checkpoint` {args, checkpoint_version, iteration, model} with Assemblies for tensors, to a new file."""
    pickle = Pickle()
    pickle.put(checkpoint)
    with open(path, "xb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        data = pickle.finish()
        add_entry(archive, "archive/data.pkl", len(data), [data])
        add_entry(archive, "archive/byteorder", 6, [b"little"])
        for key, tensor in enumerate(pickle.tensors):
            add_entry(archive, f"archive/data/{key}", tensor.nbytes, told(tensor, progress))
        add_entry(archive, "archive/version", 2, [b"3\n"])


def told(tensor, progress):
    for piece in tensor.pieces():
        yield piece
        progress.add(len(piece), "")
