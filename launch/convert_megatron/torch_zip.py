"""The zip archive that torch.save writes: NAME/data.pkl and one entry a storage, NAME/data/KEY, all uncompressed.

Only Python's own zipfile reads the table of contents; an entry's bytes are then read straight from the file. Whatever would need more memory
or disk than the file itself has (compression, overlapping entries) is refused.
"""
import os
import struct
import zipfile
import zlib

import tensor
from failure import Refused

MOST_ENTRIES = 200_000
MOST_PICKLE_BYTES = 8 << 20  # a table of 363 tensors takes 50 KB
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


class TorchZip:
    """An open archive. Owns the file; used by one thread."""

    def __init__(self, path):
        try:
            self.file = open(path, "rb")
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}") from None
        self.path = path
        self.size = os.fstat(self.file.fileno()).st_size
        self.checked = set()
        try:
            self.entries = self._read_entries()
            self.prefix = self._find_prefix()
        except Refused:
            self.file.close()
            raise

    def close(self):
        self.file.close()

    def _read_entries(self):
        try:
            with zipfile.ZipFile(self.file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise Refused(f"{self.path}: no whole zip archive: cut short, damaged, or written by torch.save's old form ({error})") from None
        if len(infos) > MOST_ENTRIES:
            raise Refused(f"{self.path}: {len(infos)} entries, more than any checkpoint has")
        entries = {}
        for info in infos:
            if info.filename in entries:
                raise Refused(f"{self.path}: entry {info.filename} is there twice")
            self._check(info)
            entries[info.filename] = info
        if sum(info.file_size for info in infos) > self.size:
            raise Refused(f"{self.path}: its entries claim more bytes than the file has; they overlap or it is cut short")
        return entries

    def _check(self, info):
        if info.flag_bits & 1:
            raise Refused(f"{self.path}: entry {info.filename} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise Refused(f"{self.path}: entry {info.filename} is compressed; torch.save stores entries as they are")

    def _find_prefix(self):
        found = [name[:-len("data.pkl")] for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise Refused(f"{self.path}: a zip archive, but not of torch.save: {len(found)} entries NAME/data.pkl instead of one")
        order = self.prefix_text(found[0] + "byteorder")
        if order not in ("", "little"):
            raise Refused(f"{self.path}: byteorder is {order[:20]!r}; only little-endian files are read")
        return found[0]

    def prefix_text(self, name):
        return self.read(name, 64).decode("ascii", "replace").strip() if name in self.entries else ""

    def read(self, name, most):
        """A whole small entry, checksum verified."""
        info = self.entries[name]
        if info.file_size > most:
            raise Refused(f"{self.path}: entry {name} has {info.file_size} bytes, at most {most} make sense")
        self.verify(name)
        return b"".join(tensor.pieces(self.file, self.data_offset(name), info.file_size))

    def pickle_bytes(self):
        return self.read(self.prefix + "data.pkl", MOST_PICKLE_BYTES)

    def data_offset(self, name):
        """Where an entry's bytes begin in the file, from its own header, which must agree with the table of contents."""
        info = self.entries[name]
        header = os.pread(self.file.fileno(), LOCAL_HEADER.size, info.header_offset) if info.header_offset >= 0 else b""
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise Refused(f"{self.path}: entry {name} has no header where the table of contents says")
        name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)[-2:]
        own_name = os.pread(self.file.fileno(), name_bytes, info.header_offset + LOCAL_HEADER.size)
        if own_name != info.orig_filename.encode("utf-8", "replace"):
            raise Refused(f"{self.path}: entry {name} is called otherwise in its own header")
        offset = info.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
        if offset + info.file_size > self.size:
            raise Refused(f"{self.path}: entry {name} ends behind the end of the file: cut short")
        return offset

    def storage(self, key):
        """(offset, bytes) of a storage's entry."""
        name = f"{self.prefix}data/{key}"
        if name not in self.entries:
            raise Refused(f"{self.path}: storage {key} has no entry {name}")
        return self.data_offset(name), self.entries[name].file_size

    def verify(self, name):
        """Compares an entry's CRC-32 with the table of contents, once."""
        if name in self.checked:
            return
        info, crc = self.entries[name], 0
        for data in tensor.pieces(self.file, self.data_offset(name), info.file_size):
            crc = zlib.crc32(data, crc)
        if crc != info.CRC:
            raise Refused(f"{self.path}: entry {name} is damaged: CRC-32 is {crc:08x}, should be {info.CRC:08x}")
        self.checked.add(name)

    def verify_storage(self, key):
        self.verify(f"{self.prefix}data/{key}")
