"""Reads data.pkl of a checkpoint without Python's pickle: a small machine that knows the few instructions and names such a file needs.

A pickle is a program, and a checkpoint comes from a stranger. Here no name is ever imported and nothing of Python's is ever called: names
become `Global`s, and what may be done with each is written below. Everything else is refused with its name. pickletools, which only splits
the bytes into instructions, is all that is used of the standard library.
"""
import collections
import dataclasses
import pickletools

from failure import Refused
from tensor import ITEM_BYTES, Tensor

STORAGES = {"BFloat16Storage": "BF16", "HalfStorage": "F16", "FloatStorage": "F32", "DoubleStorage": "F64", "LongStorage": "I64",
            "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"}
DTYPES = ("bfloat16", "float16", "half", "float32", "float", "float64", "int64", "int32", "uint8", "bool")
ENUM_MODULES = ("megatron.core.enums", "megatron.model.enums", "megatron.legacy.model.enums")
GETATTR = (("__builtin__", "getattr"), ("builtins", "getattr"))  # how Python 3.11.0 to 3.11.3 name a member of an enum; for nothing else
MOST_DIMENSIONS = 8

MARK = object()


class Namespace(dict):
    """argparse.Namespace: its attributes as a dict."""


class Opaque:
    """Something that is known and never looked at: BytesIO, ModelType."""


@dataclasses.dataclass(frozen=True)
class Global:
    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Storage:
    key: str
    dtype: str
    offset: int  # in the file
    count: int   # elements


@dataclasses.dataclass(frozen=True)
class StoredTensor(Tensor):
    key: str = ""  # of its storage


def allowed(module, name):
    """Whether a checkpoint may mention this name."""
    return ((module, name) in {("collections", "OrderedDict"), ("argparse", "Namespace"), ("_io", "BytesIO"), ("io", "BytesIO"),
                               ("_codecs", "encode"), ("torch._utils", "_rebuild_tensor_v2")}
            or (module == "torch" and (name in STORAGES or name in DTYPES))
            or is_enum(module, name))


def is_enum(module, name):
    return module in ENUM_MODULES and name == "ModelType"


class Machine:
    """Runs one data.pkl; `archive` is the TorchZip that its storages lie in."""

    def __init__(self, archive):
        self.archive = archive
        self.stack = []
        self.memo = {}
        self.where = f"{archive.path}: data.pkl"

    def refuse(self, text):
        raise Refused(f"{self.where}: {text}")

    def run(self, data):
        """The object that the pickle describes."""
        position = 0
        try:
            for opcode, argument, position in pickletools.genops(data):
                if opcode.name == "STOP":
                    if len(self.stack) != 1:
                        self.refuse("the pickle ends with more than one object")
                    return self.pop()
                handler = getattr(self, "op_" + opcode.name.lower(), None)
                if handler is None:
                    self.refuse(f"instruction {opcode.name} at byte {position} is not one that torch.save writes; refused")
                handler(argument)
        except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
            self.refuse(f"not a well-formed pickle near byte {position}: {str(error)[:200]}")
        return self.refuse("the pickle has no end")

    def pop(self):
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark where a value should be")
        return value

    def pop_mark(self):
        """What lies above the last mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is MARK:
                values = self.stack[index + 1:]
                del self.stack[index:]
                return values
        raise ValueError("no mark")

    def push(self, value):
        self.stack.append(value)

    # ---- plain values
    def op_proto(self, version):
        if version > 5:
            raise ValueError(f"protocol {version}")

    def op_frame(self, _):
        pass

    def op_mark(self, _):
        self.stack.append(MARK)

    def op_none(self, _):
        self.push(None)

    def op_newtrue(self, _):
        self.push(True)

    def op_newfalse(self, _):
        self.push(False)

    op_binint = op_binint1 = op_binint2 = op_long1 = op_binfloat = push
    op_binunicode = op_short_binunicode = op_binunicode8 = op_short_binbytes = op_binbytes = push

    # ---- containers
    def op_empty_tuple(self, _):
        self.push(())

    def op_tuple(self, _):
        self.push(tuple(self.pop_mark()))

    def _tuple_of(self, count):
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def op_tuple1(self, _):
        self._tuple_of(1)

    def op_tuple2(self, _):
        self._tuple_of(2)

    def op_tuple3(self, _):
        self._tuple_of(3)

    def op_empty_list(self, _):
        self.push([])

    def _target(self, kind):
        if not isinstance(self.stack[-1], kind) or isinstance(self.stack[-1], Namespace):
            raise ValueError(f"no {kind.__name__} to add to")
        return self.stack[-1]

    def op_append(self, _):
        value = self.pop()
        self._target(list).append(value)

    def op_appends(self, _):
        values = self.pop_mark()
        self._target(list).extend(values)

    def op_empty_dict(self, _):
        self.push({})

    def op_setitem(self, _):
        value, key = self.pop(), self.pop()
        self._set_items([key, value])

    def op_setitems(self, _):
        self._set_items(self.pop_mark())

    def _set_items(self, values):
        target = self._target(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, (str, int)):  # hashing a deeply nested tuple would take the whole stack
                raise ValueError("a key that is neither text nor number")
            target[key] = value

    # ---- the memo
    def op_binput(self, index):
        self.memo[index] = self.stack[-1]

    op_long_binput = op_binput

    def op_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_binget(self, index):
        self.push(self.memo[index])

    op_long_binget = op_binget

    # ---- names and what may be done with them
    def _global(self, module, name):
        if not allowed(module, name) and (module, name) not in GETATTR:
            self.refuse_name(module, name)
        self.push(Global(module, name))

    def refuse_name(self, module, name):
        self.refuse(f"asks for {module[:80]}.{name[:80]}, which a checkpoint of weights does not need; refused as unsafe")

    def op_global(self, argument):
        module, _, name = argument.partition(" ")
        self._global(module, name)

    def op_stack_global(self, _):
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        self._global(module, name)

    def op_reduce(self, _):
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Global) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no name")
        self.push(self._call(target, arguments))

    def op_newobj(self, _):
        arguments, target = self.pop(), self.pop()
        if not isinstance(target, Global) or target.name not in ("Namespace", "OrderedDict", "BytesIO") or arguments != ():
            raise ValueError("an object of a kind that is not made so")
        self.push(self._call(target, ()))

    def _call(self, target, arguments):
        if target.name == "_rebuild_tensor_v2":
            return self._tensor(arguments)
        if target.name in ("ModelType", "BytesIO", "encode"):
            return Opaque()
        if target.name == "getattr":
            if len(arguments) != 2 or not isinstance(arguments[0], Global) or not is_enum(arguments[0].module, arguments[0].name):
                self.refuse_name(target.module, target.name)
            return Opaque()
        if arguments:
            raise ValueError(f"{target} with arguments")
        if target.name == "OrderedDict":
            return collections.OrderedDict()
        if target.name == "Namespace":
            return Namespace()
        return self.refuse(f"calls {target}; refused as unsafe")

    def op_build(self, _):
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Namespace):
            if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
                raise ValueError("args without names")
            target.update(state)
        elif not isinstance(target, (collections.OrderedDict, Opaque)):  # their attributes (_metadata, a buffer's text) are not needed
            raise ValueError("attributes for something that has none")

    # ---- tensors
    def op_binpersid(self, _):
        kind, storage, key, _, count = self.pop()
        if kind != "storage" or not isinstance(storage, Global) or storage.name not in STORAGES:
            raise ValueError("a reference to something that is no storage")
        if not isinstance(key, str) or not key.isalnum() or type(count) is not int or count < 0:
            raise ValueError("a storage without a usable key or size")
        dtype = STORAGES[storage.name]
        offset, size = self.archive.storage(key)
        if count * ITEM_BYTES[dtype] != size:
            self.refuse(f"storage {key} should have {count} elements of {dtype}, its entry has {size} bytes")
        self.push(Storage(key, dtype, offset, count))

    def _tensor(self, arguments):
        storage, offset, shape, strides, _, hooks = arguments[:6]
        sizes = (offset, *shape, *strides)
        if not isinstance(storage, Storage) or hooks or len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise ValueError("a tensor of another form than torch.save's")
        if not all(type(size) is int and size >= 0 for size in sizes):
            raise ValueError("a tensor with negative sizes")
        wanted = 1
        for size, stride in zip(reversed(shape), reversed(strides)):
            if size > 1 and stride != wanted:
                self.refuse(f"a tensor of shape {list(shape)[:8]} is stored with strides {list(strides)[:8]}; only contiguous ones are read")
            wanted *= size
        if offset + wanted > storage.count:
            self.refuse(f"a tensor of shape {list(shape)[:8]} reaches behind the end of storage {storage.key}")
        return StoredTensor(self.archive.file, storage.offset + offset * ITEM_BYTES[storage.dtype], storage.dtype, tuple(shape), storage.key)


def load(archive):
    """The object in a TorchZip's data.pkl; its tensors point into the file."""
    return Machine(archive).run(archive.pickle_bytes())
