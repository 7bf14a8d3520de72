#!/usr/bin/env python3
"""Good files with random damage: every one is understood or Refused, never anything else (fixed seeds; MUTATIONS asks for more)."""
import contextlib
import io
import os
import pathlib
import random
import tempfile
import unittest
import zipfile

from megatron_files import Network, convert, write_zip

import forward
import safetensors
import torch_pickle
from failure import Refused
from torch_zip import TorchZip

MUTATIONS = int(os.environ.get("MUTATIONS", "400"))


def damaged(source, data):
    """`data` with a few bytes changed, a stretch removed, doubled or cut off."""
    data, what = bytearray(data), source.randrange(5)
    at, length = source.randrange(len(data)), source.randrange(1, 40)
    if what <= 1:
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(len(data))] = source.choice((0, 1, 0x28, 0x2e, 0x7f, 0x80, 0xff, source.randrange(256)))
    elif what == 2:
        del data[at:at + length]
    elif what == 3:
        data[at:at] = data[at:at + length]
    else:
        del data[at:]
    return bytes(data)


class Mutations(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "a.pt"
        self.random = random.Random(20240314)

    def understand(self):
        """Whether the file is understood; storages are checked, nothing is written."""
        archive = None
        try:
            archive = TorchZip(str(self.path))
            _, _, tensors, _ = forward.understand(torch_pickle.load(archive), archive.path, 0)
            for tensor in tensors.values():
                archive.verify_storage(tensor.key)
            return True
        except Refused as error:
            self.assertLess(len(str(error)), 3000)
            return False
        finally:
            if archive is not None:
                archive.close()

    def test_pickles(self):
        Network().save(self.path)
        with zipfile.ZipFile(self.path) as archive:
            good = archive.read("model_optim_rng/data.pkl")
            storages = [archive.read(f"model_optim_rng/data/{key}") for key in range(sum("/data/" in name for name in archive.namelist()))]
        for _ in range(MUTATIONS):
            write_zip(self.path, damaged(self.random, good), storages)
            self.understand()

    def test_archives(self):
        Network(layers=1).save(self.path)
        good = self.path.read_bytes()
        self.assertTrue(self.understand())
        directory = good.index(b"PK\x01\x02")
        for i in range(MUTATIONS):
            if i % 2:
                self.path.write_bytes(good[:directory] + damaged(self.random, good[directory:]))
            else:
                self.path.write_bytes(damaged(self.random, good))
            self.understand()

    def test_safetensors(self):
        Network(layers=1).save(self.path)
        self.assertEqual(convert(self.path, self.folder / "hf")[0], 0)
        model = self.folder / "hf" / "model.safetensors"
        good = model.read_bytes()
        header = good[:8 + int.from_bytes(good[:8], "little")]
        for _ in range(MUTATIONS):
            model.write_bytes(damaged(self.random, header) + good[len(header):])
            with contextlib.ExitStack() as files, contextlib.suppress(Refused), contextlib.redirect_stdout(io.StringIO()):
                safetensors.read_directory(str(self.folder / "hf"), files)


if __name__ == "__main__":
    unittest.main(verbosity=2)
