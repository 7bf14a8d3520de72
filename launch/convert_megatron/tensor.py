"""Tensors as they lie in a file: bytes somewhere, a type, a shape. Nothing here holds weights; they are read in pieces when asked for."""
import dataclasses
import os

from failure import Refused

PIECE = 8 << 20  # bytes held at a time

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
WEIGHTS = ("F32", "F16", "BF16")  # what a weight may be stored as


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A contiguous tensor: `file` is open for reading, its bytes begin at `offset`."""
    file: object
    offset: int
    dtype: str     # of ITEM_BYTES
    shape: tuple

    @property
    def nbytes(self):
        count = ITEM_BYTES[self.dtype]
        for size in self.shape:
            count *= size
        return count

    @property
    def row_bytes(self):
        return self.nbytes // self.shape[0]

    def rows(self, begin, end):
        """Rows [begin, end) of the first dimension, as a tensor of the same file."""
        return dataclasses.replace(self, offset=self.offset + begin * self.row_bytes, shape=(end - begin, *self.shape[1:]))


def pieces(file, offset, count):
    """The bytes [offset, offset + count) of an open file, at most PIECE at a time; Refused when the file ends before."""
    while count > 0:
        data = os.pread(file.fileno(), min(count, PIECE), offset)
        if not data:
            raise Refused(f"{file.name}: ends at byte {offset}, {count} bytes too early")
        yield data
        offset += len(data)
        count -= len(data)


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A tensor to be written: `parts` of one type one after another are its bytes."""
    parts: tuple   # of Tensor
    shape: tuple

    @property
    def dtype(self):
        return self.parts[0].dtype

    @property
    def nbytes(self):
        return sum(part.nbytes for part in self.parts)

    def pieces(self):
        for part in self.parts:
            yield from pieces(part.file, part.offset, part.nbytes)
