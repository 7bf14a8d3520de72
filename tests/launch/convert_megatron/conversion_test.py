#!/usr/bin/env python3
"""Megatron -> Hugging Face and back: every byte where it belongs, for MHA, GQA, tied tables, shared storages, shards."""
import contextlib
import json
import pathlib
import sys
import tempfile
import unittest

from megatron_files import FakeTensor, Network, convert

import safetensors
import torch_pickle
from torch_zip import TorchZip


def tensors_in(folder):
    """{name: (shape, bytes)} of a Hugging Face directory."""
    with contextlib.ExitStack() as files:
        found = safetensors.read_directory(str(folder), files)
        return {name: (t.shape, pathlib.Path(t.file.name).read_bytes()[t.offset:t.offset + t.nbytes]) for name, t in found.items()}


def tensors_of(path):
    """{name: (shape, bytes)} of a Megatron checkpoint, _extra_state left out."""
    archive = TorchZip(str(path))
    data = path.read_bytes()
    model = torch_pickle.load(archive)["model"]
    archive.close()
    return {name: (t.shape, data[t.offset:t.offset + t.nbytes]) for name, t in model.items() if not name.endswith("_extra_state")}


class Conversion(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def convert(self, *arguments):
        code, text, errors = convert(*arguments)
        self.assertEqual(code, 0, errors)
        return text

    def round_trip(self, network, *flags, **changes):
        """Megatron -> Hugging Face -> Megatron -> Hugging Face -> Megatron, everything compared on the way."""
        source = network.save(self.folder / "model_optim_rng.pt", **changes)
        hf, back, again, second = (self.folder / name for name in ("hf", "back.pt", "again", "second.pt"))
        text = self.convert(source, hf, *flags)
        self.assertEqual(tensors_in(hf), network.expected)
        self.convert("--to-megatron", hf, back)
        self.assertEqual(tensors_of(back), tensors_of(source))
        self.convert(back, again, *flags)
        self.convert("--to-megatron", again, second)
        self.assertEqual(second.read_bytes(), back.read_bytes(), "the whole file, byte for byte")
        for name in ("config.json", "model.safetensors"):
            if (hf / name).exists():
                self.assertEqual((again / name).read_bytes(), (hf / name).read_bytes())
        return text

    def test_mha(self):
        text = self.round_trip(Network())
        for said in ("args.dmc_cr: 4.0", "args.dmc_window_size: 12", "vocabulary: 256 of 272 rows", "dropped: 4 _extra_state"):
            self.assertIn(said, text)
        config = json.loads((self.folder / "hf" / "config.json").read_text())
        self.assertEqual(config["dmc"], {"target_cr": 4.0, "window": 12, "offset": 5.0})
        self.assertEqual((config["num_key_value_heads"], config["head_dim"], config["vocab_size"]), (4, 16, 256))
        self.assertEqual((config["rms_norm_eps"], config["rope_theta"], config["torch_dtype"]), (1e-5, 10000.0, "bfloat16"))
        self.assertNotIn("bos_token_id", config)

    def test_gqa(self):
        for groups in (1, 2):
            with self.subTest(groups), tempfile.TemporaryDirectory() as folder:
                self.folder = pathlib.Path(folder)
                self.round_trip(Network(groups=groups))

    def test_tied_and_unpadded(self):
        self.round_trip(Network(tied=True, padded=256))
        config = json.loads((self.folder / "hf" / "config.json").read_text())
        self.assertTrue(config["tie_word_embeddings"])
        self.assertFalse((self.folder / "hf" / "megatron" / "padding.safetensors").exists())

    def test_plain_llama_and_given_vocabulary(self):
        changes = {f"dmc_{name}": "absent" for name in ("cr", "window_size", "init_val", "temp", "finetune", "is_stage_one")}
        text = self.round_trip(Network(), "--vocab-size", "256", vocab_size=None, tokenizer_type="GPT2BPETokenizer", **changes)
        self.assertIn("a plain Llama", text)
        self.assertNotIn("dmc", json.loads((self.folder / "hf" / "config.json").read_text()))

    def test_shards(self):
        self.round_trip(Network(), "--max-shard-size", "40KB")
        index = json.loads((self.folder / "hf" / "model.safetensors.index.json").read_text())
        files = set(index["weight_map"].values())
        self.assertGreater(len(files), 3)
        self.assertEqual(index["metadata"]["total_size"], sum(len(data) for _, data in Network().expected.values()))
        self.assertEqual({p.name for p in (self.folder / "hf").glob("*.safetensors")}, files)

    def test_views_of_one_storage(self):
        network = Network()
        names = [name for name, value in network.model.items() if isinstance(value, FakeTensor)]
        whole = FakeTensor(b"".join(network.model[name].data for name in names), "BF16", (1,))
        offset = 0
        for name in names:
            tensor = network.model[name]
            network.model[name] = FakeTensor(b"", "BF16", tensor.shape, (offset // 2, whole))
            offset += len(tensor.data)
        self.round_trip(network)

    def test_other_types(self):
        for dtype, name, repeat in (("F16", "float16", 1), ("F32", "float32", 2)):
            with self.subTest(dtype), tempfile.TemporaryDirectory() as folder:
                self.folder = pathlib.Path(folder)
                network = Network()
                for tensor in network.model.values():
                    if isinstance(tensor, FakeTensor):
                        tensor.data, tensor.dtype = tensor.data * repeat, dtype
                source = network.save(self.folder / "a.pt")
                self.convert(source, self.folder / "hf")
                self.assertEqual(json.loads((self.folder / "hf" / "config.json").read_text())["torch_dtype"], name)
                self.convert("--to-megatron", self.folder / "hf", self.folder / "back.pt")
                self.assertEqual(tensors_of(self.folder / "back.pt"), tensors_of(source))

    def test_folders_and_tokenizers(self):
        rank = self.folder / "run" / "iter_0000070" / "mp_rank_00"
        rank.mkdir(parents=True)
        Network().save(rank / "model_optim_rng.pt")
        (self.folder / "run" / "latest_checkpointed_iteration.txt").write_text("70\n")
        tokenizer = self.folder / "tokenizer.model"
        tokenizer.write_bytes(b"pieces")
        self.convert(self.folder / "run", self.folder / "hf", "--tokenizer", tokenizer)
        self.assertEqual((self.folder / "hf" / "tokenizer.model").read_bytes(), b"pieces")
        self.assertTrue(json.loads((self.folder / "hf" / "tokenizer_config.json").read_text())["add_bos_token"])
        (self.folder / "hf" / "tokenizer.json").write_text("{}")
        config = json.loads((self.folder / "hf" / "config.json").read_text())
        (self.folder / "hf" / "config.json").write_text(json.dumps(dict(config, bos_token_id=5, eos_token_id=[6, 7])))
        self.convert(rank.parent, self.folder / "hf2", "--tokenizer", self.folder / "hf")
        self.assertTrue((self.folder / "hf2" / "tokenizer.json").exists())
        config = json.loads((self.folder / "hf2" / "config.json").read_text())
        self.assertEqual((config["bos_token_id"], config["eos_token_id"]), (5, [6, 7]))

    def test_members_of_enums(self):
        """By value, as most Pythons pickle them, and by name, as 3.11.0 to 3.11.3 do."""
        class Member:
            def __init__(self, by_name):
                self.by_name = by_name

            def __reduce__(self):
                kind = sys.modules["megatron.core.enums"].ModelType
                return (getattr, (kind, "encoder_or_decoder")) if self.by_name else (kind, (1,))
        for by_name in (False, True):
            with self.subTest(by_name=by_name):
                self.convert(Network().save(self.folder / f"{by_name}.pt", other_type=Member(by_name)), self.folder / f"{by_name}")

    def test_a_directory_that_never_was_megatron(self):
        network = Network(padded=256)
        self.convert(network.save(self.folder / "a.pt"), self.folder / "hf")
        for path in (self.folder / "hf" / "megatron").iterdir():
            path.unlink()
        (self.folder / "hf" / "megatron").rmdir()
        self.convert("--to-megatron", self.folder / "hf", self.folder / "back.pt")
        self.assertEqual(tensors_of(self.folder / "back.pt"), tensors_of(self.folder / "a.pt"))
        self.convert(self.folder / "back.pt", self.folder / "again")
        self.assertEqual((self.folder / "again" / "config.json").read_bytes(), (self.folder / "hf" / "config.json").read_bytes())


if __name__ == "__main__":
    unittest.main(verbosity=2)
