#!/usr/bin/env python3
"""Against PyTorch itself, where there is one: files that torch.save wrote are converted, files written by the converter are loaded."""
import argparse
import collections
import enum
import os
import pathlib
import sys
import tempfile
import unittest

import megatron_files
from megatron_files import FakeTensor, Network, convert

try:
    import torch
except ImportError:
    torch = None


class ModelType(enum.Enum):
    encoder_or_decoder = 1


def real(tensor):
    return torch.frombuffer(bytearray(tensor.data), dtype=torch.bfloat16).reshape(tensor.shape)


class WithTorch(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def save(self, network, **options):
        megatron_files.stand_in("megatron.core.enums", "ModelType", ModelType)
        model = collections.OrderedDict((name, real(value) if isinstance(value, FakeTensor) else value) for name, value in network.model.items())
        model._metadata = collections.OrderedDict({"": {"version": 1}})
        args = argparse.Namespace(**vars(network.args(params_dtype=torch.bfloat16)), model_type=ModelType.encoder_or_decoder)
        path = self.folder / "model_optim_rng.pt"
        torch.save({"args": args, "checkpoint_version": 3.0, "iteration": 7, "model": model}, path, **options)
        return path

    def test_both_ways(self):
        for groups in (4, 2):
            for options in ({}, {"pickle_protocol": 4}):
                with self.subTest(groups=groups, **options), tempfile.TemporaryDirectory() as folder:
                    self.check(Network(groups=groups), pathlib.Path(folder), options)

    def check(self, network, folder, options):
        path, hf, back = self.save(network, **options), folder / "hf", folder / "back.pt"
        for arguments in ((path, hf), ("--to-megatron", hf, back)):
            code, _, errors = convert(*arguments)
            self.assertEqual(code, 0, errors)
        before = torch.load(path, weights_only=False)
        with torch.serialization.safe_globals([argparse.Namespace]):
            after = torch.load(back, weights_only=True, mmap=True)
        for name, value in before["model"].items():
            if not name.endswith("_extra_state"):
                self.assertTrue(torch.equal(value.view(torch.int16), after["model"][name].view(torch.int16)), name)
        self.assertEqual((after["iteration"], after["checkpoint_version"], after["args"].dmc_cr), (7, 3.0, 4.0))


if __name__ == "__main__":
    other = os.environ.pop("ACCRETE_PYTHON", "")
    if torch is None and other:
        os.execvp(other, [other, "-B", __file__])
    if torch is None:
        print("skipped: PyTorch is not installed for this Python; ACCRETE_PYTHON may name one that has it")
        sys.exit(77)
    unittest.main(verbosity=2)
