#!/usr/bin/env python3
"""What does not fit is refused with a message that names it, hostile files among it, and leaves nothing behind."""
import io
import os
import pathlib
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

from megatron_files import PACKAGE, FakeTensor, Network, convert, save, write_zip

X = b"X\x01\x00\x00\x00x"  # BINUNICODE "x"


class Refusals(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.source = self.folder / "model_optim_rng.pt"

    def expect(self, *said, flags=(), code=1):
        """Converting self.source fails with one line that contains all of `said`, and leaves no output, not even a part."""
        before = sorted(os.listdir(self.folder))
        got, _, errors = convert(self.source, self.folder / "hf", *flags)
        self.assertEqual(got, code, errors)
        lines = [line for line in errors.splitlines() if not line.startswith(("checking:", "writing:"))]
        self.assertEqual(len(lines), 1, errors)
        self.assertLess(len(lines[0]), 1000)
        for text in ("accrete convert-megatron: error: ", *said):
            self.assertIn(text, lines[0])
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_args(self):
        for changes, said in (
                (dict(tensor_model_parallel_size=2), ("tensor_model_parallel_size is 2", "merge")),
                (dict(pipeline_model_parallel_size=4), ("pipeline_model_parallel_size is 4",)),
                (dict(rotary_interleaved=True), ("rotary_interleaved", "permuted")), (dict(rotary_percent=0.5), ("rotary_percent",)),
                (dict(swiglu=False), ("swiglu",)), (dict(normalization="LayerNorm"), ("normalization", "RMSNorm")),
                (dict(position_embedding_type="learned_absolute"), ("position_embedding_type",)), (dict(num_experts=8), ("num_experts",)),
                (dict(add_bias_linear=True), ("add_bias_linear",)), (dict(apply_layernorm_1p=True), ("apply_layernorm_1p",)),
                (dict(use_rope_scaling=True), ("use_rope_scaling",)), (dict(dmc_is_stage_one=True), ("dmc_is_stage_one", "later stage")),
                (dict(num_layers=3), ("num_layers is 3",)), (dict(num_layers=1 << 200), ("num_layers",)), (dict(num_layers="absent"), ("num_layers",)),
                (dict(num_layers=True), ("num_layers",)), (dict(hidden_size=-64), ("hidden_size",)), (dict(num_attention_heads=5), ("linear_proj", "shape")),
                (dict(group_query_attention=True, num_query_groups=3), ("num_query_groups",)), (dict(ffn_hidden_size=95), ("linear_fc1", "[192, 64]", "[190, 64]")),
                (dict(vocab_size=None, tokenizer_type="GPT"), ("--vocab-size",)), (dict(vocab_size=273), ("272 rows", "273")),
                (dict(norm_epsilon=float("nan")), ("norm_epsilon",)), (dict(rotary_base="10000"), ("rotary_base",)),
                (dict(dmc_cr=0.5), ("dmc_cr",)), (dict(dmc_cr="absent"), ("dmc_cr is missing",)), (dict(dmc_window_size=12.5), ("dmc_window_size",)),
                (dict(dmc_init_val=None, dmc_cr=None), ("dmc_cr",)), (dict(untie_embeddings_and_output_weights=False), ("output_layer.weight",))):
            with self.subTest(str(changes)[:60]):
                Network().save(self.source, **changes)
                self.expect(*said)

    def test_tensors(self):
        def model_with(change):
            network = Network()
            change(network.model)
            network.save(self.source)
        qkv = "decoder.layers.1.self_attention.linear_qkv.weight"
        for change, said in (
                (lambda m: m.pop(qkv), (qkv, "missing")), (lambda m: m.pop("embedding.word_embeddings.weight"), ("word_embeddings",)),
                (lambda m: m.update({"decoder.layers.0.mlp.router.weight": m[qkv]}), ("router.weight", "no place")),
                (lambda m: m.update({qkv: FakeTensor(m[qkv].data, "BF16", m[qkv].shape[::-1])}), (qkv, "[64, 192]", "[192, 64]")),
                (lambda m: m.update({qkv: FakeTensor(b"\0" * 12288, "U8", (192, 64))}), (qkv, "U8")), (lambda m: m.update({qkv: [1]}), (qkv, "no tensor"))):
            with self.subTest(said):
                model_with(change)
                self.expect(*said)

    def test_tensors_that_lie(self):
        class Lying(FakeTensor):
            def strides(self):
                return (1, self.shape[0])
        for tensor, said in ((Lying(b"\0" * 24, "BF16", (3, 4)), "contiguous"), (FakeTensor(b"\0" * 22, "BF16", (3, 4)), "behind the end"),
                             (FakeTensor(b"\0" * 24, "BF16", (1 << 70, 1 << 70)), "behind the end"), (FakeTensor(b"\0" * 24, "BF16", (-3, -4)), "negative"),
                             (FakeTensor(b"", "BF16", (3, 4), (1, FakeTensor(b"\0" * 24, "BF16", (12,)))), "behind the end"),
                             (FakeTensor(b"\0" * 23, "BF16", (3, 4)), "23 bytes")):
            with self.subTest(said):
                save(self.source, lambda names, t=tensor: {"model": {"x": t}})
                self.expect(said)

    def test_names_that_run_programs(self):
        for call, said in ((os.system, "posix.system"), (eval, "eval"), (subprocess.Popen, ".Popen"), (getattr, "getattr"),
                           (pathlib.PosixPath, "pathlib")):
            class Evil:
                def __reduce__(self, call=call):
                    return call, ("touch " + str(marker),)
            marker = self.folder / "owned"
            for protocol in (2, 4, 5):
                with self.subTest(said, protocol=protocol):
                    write_zip(self.source, pickle.dumps({"model": Evil()}, protocol), [])
                    self.expect(said, "unsafe")
                    self.assertFalse(marker.exists())

    def test_pickles(self):
        deep = b"\x80\x02}(" + b")" + b"\x85" * 200000 + b"Nu."
        for data, said in (
                (b"", "pickle"), (b"\x80\x02N", "pickle"), (b"\x80\x02.", "pickle"), (b"\x80\x02}", "pickle"), (b"\x80\x63N.", "protocol"), (b"\x80\x02NN.", "more than one"),
                (b"\x80\x02r\xff\xff\xff\x7fN.", "pickle"), (b"\x80\x02Nr\xff\xff\xff\x7f.", "'model'"), (b"\x80\x02j\x07\x00\x00\x00.", "pickle"),
                (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.", "pickle"), (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".", "pickle"),
                (b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"1.", "pickle"), (b"\x80\x02cos\nsystem\n(S'id'\ntR.", "os.system"),
                (b"\x80\x02(S'id'\nios\nsystem\n.", "STRING"), (b"\x80\x02(" + X + b"ios\nsystem\n.", "INST"), (b"\x80\x02(lp0\n.", "LIST"),
                (b"\x80\x04" + X + X + b"\x93.", "x.x"), (b"\x80\x04NN\x93.", "no text"), (deep, "key"), (b"\x80\x02e.", "pickle"), (b"\x80\x02Na.", "pickle"),
                (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.FloatStorage"), (b"\x80\x02ctorch\nFloatStorage\n)\x81.", "kind"),
                (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "arguments"), (b"\x80\x02cargparse\nNamespace\nNb.", "attributes"), (b"\x80\x02" + X + b"Q.", "pickle"),
                (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "pickle"), (b"\x80\x02(NNNNNNt.", "'model'"), (b"\x80\x02\x82\x01.", "EXT1"),
                (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)))NtR.", "form"), (b"\x80\x02}(" + X + b"u.", "pickle")):
            with self.subTest(data[:30]):
                write_zip(self.source, data, [])
                self.expect("data.pkl" if said != "'model'" else "model_optim_rng.pt", said)

    def test_storage_references(self):
        def reference(key, count, kind=b"ctorch\nFloatStorage\n"):
            parts = b"(" + b"X\x07\x00\x00\x00storage" + kind + b"X" + struct.pack("<I", len(key)) + key + X + count + b"tQ."
            return b"\x80\x02" + parts
        for data, said in ((reference(b"../../secret", b"K\x01"), "key"), (reference(b"9", b"K\x01"), "data/9"), (reference(b"0", b"K\x02"), "should have 2"),
                           (reference(b"0", b"\x8a\x09" + b"\xff" * 8 + b"\x7f"), "should have"), (reference(b"0", b"J\xff\xff\xff\xff"), "size"),
                           (reference(b"0", b"K\x01", b"ccollections\nOrderedDict\n"), "no storage"), (reference(b"0", b"\x88"), "size")):
            with self.subTest(said):
                write_zip(self.source, data, [b"\0" * 4])
                self.expect(said)

    def test_archives(self):
        whole = Network().save(self.source).read_bytes()
        for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(cut=cut):
                self.source.write_bytes(whole[:cut])
                self.expect("cut short")
        self.source.write_bytes(b"\x80\x02" + bytes(1000))
        self.expect("old form")
        write_zip(self.source, pickle.dumps({}, 2), [b"\0" * 1000], zipfile.ZIP_DEFLATED)
        self.expect("is compressed")
        with zipfile.ZipFile(self.source, "w") as archive:
            archive.writestr("a/other.pkl", "x")
        self.expect("not of torch.save")
        with zipfile.ZipFile(self.source, "w") as archive:
            archive.writestr("a/data.pkl", "x")
            archive.writestr("a/byteorder", "big")
        self.expect("byteorder is 'big'")
        with zipfile.ZipFile(self.source, "w") as archive:
            archive.writestr("a/data.pkl", "x")
            with self.assertWarns(UserWarning):
                archive.writestr("a/data.pkl", "y")
        self.expect("twice")
        with zipfile.ZipFile(self.source, "w") as archive:
            archive.writestr("a/data.pkl", bytes(9 << 20))
        self.expect("data.pkl has", "at most")

    def test_damage(self):
        """Bytes changed in tables and in weights."""
        whole = Network().save(self.source).read_bytes()
        directory = struct.unpack("<L", whole[-6:-2])[0]
        entry = whole.index(b"PK\x01\x02", directory)
        for what, offset, value, said in (
                ("encrypted", entry + 8, b"\x01", "encrypted"), ("local header", 0, b"QK", "no header"), ("local name", 30, b"M", "called otherwise"),
                ("a storage's bytes", whole.index(b"data/3") + 200, b"\xaa\xbb\xcc", "is damaged"),
                ("size", entry + 20, struct.pack("<2L", 1 << 31, 1 << 31), "more bytes than the file"),
                ("offset", entry + 42, struct.pack("<L", len(whole) - 10), "no header")):
            with self.subTest(what):
                self.source.write_bytes(whole[:offset] + value + whole[offset + len(value):])
                self.expect(said)

    def test_the_places(self):
        Network().save(self.source)
        (self.folder / "hf").mkdir()
        (self.folder / "hf" / "mine").write_text("kept")
        self.expect("hf: is already there")
        (self.folder / "hf" / "mine").unlink()
        self.assertEqual(convert(self.source, self.folder / "hf")[0], 0, "an empty directory is a place")
        self.assertIn("no-such.pt", convert(self.folder / "no-such.pt", self.folder / "x")[2])
        self.assertIn("mp_rank_00", convert(self.folder / "hf", self.folder / "x")[2])
        for rank in ("mp_rank_00", "mp_rank_01"):
            (self.folder / "two" / rank).mkdir(parents=True)
        self.assertIn("2 ranks", convert(self.folder / "two", self.folder / "x")[2])
        self.assertIn("--tokenizer", convert(self.source, self.folder / "x", "--tokenizer", self.folder / "two")[2])
        for flags, said in ((["--vocab-size", "-1"], "--vocab-size"), (["--max-shard-size", "5 parsecs"], "--max-shard-size"), (["--colour"], "--colour"), ([], "dst")):
            with self.subTest(said):
                code, _, errors = convert(self.source, *flags) if not flags else convert(self.source, self.folder / "x", *flags)
                self.assertEqual(code, 2)
                self.assertIn(said, errors)
        self.assertFalse((self.folder / "x").exists())

    def test_back_to_megatron(self):
        self.assertEqual(convert(Network().save(self.source), self.folder / "hf")[0], 0)
        for name, data, said in (("model.safetensors", b"\xff" * 20, "cut short"), ("config.json", b"[]", "not a JSON object"),
                                 ("megatron/source.json", b"{}", "args is missing"), ("megatron/padding.safetensors", b"\x02" + bytes(7) + b"[]", "damaged")):
            with self.subTest(name):
                path = self.folder / "hf" / name
                before = path.read_bytes()
                path.write_bytes(data)
                code, _, errors = convert("--to-megatron", self.folder / "hf", self.folder / "back.pt")
                path.write_bytes(before)
                self.assertEqual(code, 1)
                self.assertIn(said, errors)
                self.assertIn(path.name, errors)
                self.assertFalse((self.folder / "back.pt").exists())


class Resources(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def large(self):
        network = Network(layers=1)
        network.mlp = 400_000  # 150 MB
        zeros = bytes(network.mlp * network.hidden * 2)
        network.model["decoder.layers.0.mlp.linear_fc1.weight"] = FakeTensor(zeros * 2, "BF16", (2 * network.mlp, network.hidden))
        network.model["decoder.layers.0.mlp.linear_fc2.weight"] = FakeTensor(zeros, "BF16", (network.hidden, network.mlp))
        return network.save(self.folder / "large.pt")

    def test_memory_and_signals(self):
        source = self.large()
        script = ("import sys; sys.path.insert(0, sys.argv[1]); import runpy; sys.argv = sys.argv[1:]\n"
                  "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
                  "finally: print('peak', *[line for line in open('/proc/self/status') if line.startswith('VmHWM')])")
        done = subprocess.run([sys.executable, "-c", script, str(PACKAGE), str(source), str(self.folder / "hf")], capture_output=True, text=True, check=True)
        self.assertLess(int(done.stdout.split()[-2]), 80_000, "KiB at most, for a file of 150 MB")
        job = subprocess.Popen([sys.executable, str(PACKAGE), str(source), str(self.folder / "stopped")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        end = time.monotonic() + 60
        while not list(self.folder.glob("stopped.partial-*/*/model.safetensors")) and job.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        job.send_signal(signal.SIGTERM)
        errors = job.communicate(timeout=60)[1]
        self.assertEqual(job.returncode, 1, errors)
        self.assertIn("stopped by a signal", errors)
        self.assertEqual(sorted(os.listdir(self.folder)), ["hf", "large.pt"])

    def test_a_full_disk(self):
        source = Network().save(self.folder / "a.pt")
        limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
        done = subprocess.run([sys.executable, "-B", str(PACKAGE), str(source), str(self.folder / "hf")], capture_output=True, text=True, preexec_fn=limit, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("File too large", done.stderr)
        self.assertEqual(os.listdir(self.folder), ["a.pt"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
