#!/usr/bin/env python3
"""accrete convert-megatron, then the engine on what it made: it loads, compresses by its own decisions, generates, and profiles alike in any shape."""
import json
import pathlib
import tempfile
import unittest

import support
import tiny_megatron

TEXT = "All happy families are alike; each unhappy family is unhappy in its own way. " * 4
SMALL = ["--kv-cache-memory-bytes", "16MiB", "--device", "cpu", "--cpu-threads", "1"]


class Convert(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.model = tiny_megatron.converted(cls.folder)

    def run_accrete(self, *arguments):
        code, text, errors = support.run(*arguments)
        self.assertEqual(code, 0, errors)
        return text

    def test_inspect_knows_the_model(self):
        text = self.run_accrete("inspect", self.model)
        self.assertIn("target CR 4, window 12, offset 5", text)
        self.assertIn("4, 2 of size 16", text)

    def test_generates_and_compresses(self):
        arguments = ["generate", self.model, "--raw", "--prompt", TEXT, "--max-tokens", "24", "--ignore-eos", "--dtype", "float32", *SMALL]
        code, text, errors = support.run(*arguments)
        self.assertEqual(code, 0, errors)
        self.assertIn("CR 4 (the model's own)", errors)
        for shape in (["-tp", "2"], ["-pp", "2"]):
            self.assertEqual(self.run_accrete(*arguments, *shape), text, shape)

    def profile(self, *shape):
        (self.folder / "text.txt").write_text(TEXT)
        out = self.folder / "profile.json"
        self.run_accrete("profile", self.model, "--text", self.folder / "text.txt", "--out", out, "--length", "150", "--dtype", "float32", *SMALL, *shape)
        return json.loads(out.read_text())

    def test_profiles_of_any_shape_agree(self):
        one = self.profile()
        self.assertEqual((one["layers"], one["kv_heads"], one["windows"]), (4, 2, len(TEXT) // 150))
        slots = [head for layer in one["mean_slots"][-1] for head in layer]
        self.assertLess(min(slots), 120, "some head compresses")
        self.assertGreater(len(set(slots)), 5, "heads differ")
        self.assertEqual(one["provenance"]["synthetic_cr"], 0)
        for shape in (["-tp", "2"], ["-pp", "4"], ["-tp", "2", "-pp", "2"]):
            cut = self.profile(*shape)
            for field in ("lengths", "mean_slots", "most_slots", "model_hash"):
                self.assertEqual(cut[field], one[field], f"{field} of {shape}")

    def test_back_again(self):
        self.run_accrete("convert-megatron", "--to-megatron", self.model, self.folder / "back.pt")
        self.run_accrete("convert-megatron", self.folder / "back.pt", self.folder / "again", "--tokenizer", self.model)
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            same = self.folder / "again" / name
            if name != "model.safetensors":
                self.assertEqual(same.read_bytes(), (self.model / name).read_bytes())
        self.run_accrete("convert-megatron", "--to-megatron", self.folder / "again", self.folder / "back2.pt")
        self.assertEqual((self.folder / "back2.pt").read_bytes(), (self.folder / "back.pt").read_bytes())

    def test_errors_keep_their_exit_codes(self):
        for arguments, code, said in ((["no-such.pt", self.folder / "x"], 1, "no-such.pt"), ([self.folder / "model_optim_rng.pt"], 2, "dst"),
                                      ([self.folder / "model_optim_rng.pt", self.model], 1, "already there"),
                                      ([self.folder / "a", self.folder / "b", "--vocab-size", "many"], 2, "--vocab-size")):
            got, _, errors = support.run("convert-megatron", *arguments)
            self.assertEqual(got, code, errors)
            self.assertIn(said, errors)
            self.assertIn("accrete convert-megatron: error:", errors)
        got, _, errors = support.run("convert-megatron", "a", "b", extra_env={"ACCRETE_PYTHON": "no-such-python"})
        self.assertEqual((got, "no-such-python" in errors), (1, True), errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
