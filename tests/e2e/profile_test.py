#!/usr/bin/env python3
"""accrete profile on a real model with forced decisions: JSON, heat map, inspect's table, shapes that agree, and bad input by name."""
import json
import pathlib
import tempfile
import unittest
import xml.etree.ElementTree

import support

TEXT = "The lighthouse keeper counted ships, and every ship he counted he wrote into a book. " * 24
FORCED = ["--dmc-synthetic-cr", "4", "--length", "96", "--max-tokens", "200", "--points", "3"]


class Profile(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.text = self.folder / "text.txt"
        self.text.write_text(TEXT)
        self.out = self.folder / "profile.json"

    def profile(self, *flags):
        code, text, errors = support.run("profile", support.MODEL, "--text", self.text, "--out", self.out, *support.SMALL, *flags)
        self.assertEqual(code, 0, errors)
        return json.loads(self.out.read_text()), text

    def test_forced_decisions(self):
        one, text = self.profile(*FORCED)
        self.assertEqual((one["format"], one["version"], one["text"], one["windows"]), ("accrete slot profile", 1, "text.txt", 2))
        self.assertEqual(one["lengths"], [16, 32, 64, 96])
        self.assertEqual(one["provenance"]["synthetic_cr"], 4)
        self.assertIn("synthetic decisions", text)
        slots = [head for layer in one["mean_slots"][-1] for head in layer]
        self.assertEqual(len(slots), 90)
        self.assertGreater(96 * 90 / sum(slots), 3)
        svg = (self.folder / "profile.svg").read_text()
        xml.etree.ElementTree.fromstring(svg)
        self.assertIn("Synthetic decisions", svg)
        cut, _ = self.profile(*FORCED, "-tp", "3", "-pp", "2", "--svg", self.folder / "cut.svg")
        self.assertTrue((self.folder / "cut.svg").exists())
        for field in ("lengths", "mean_slots", "most_slots"):
            self.assertEqual(cut[field], one[field], field)
        self.inspect_shows(one)

    def inspect_shows(self, profile):
        code, text, errors = support.run("inspect", "--profile", self.out, "--profile-length", "80", "--output-json", self.folder / "shown.json")
        self.assertEqual(code, 0, errors)
        self.assertIn("After 80 tokens, interpolated", text)
        self.assertIn("synthetic decisions", text)
        self.assertEqual(json.loads((self.folder / "shown.json").read_text())["profile"]["mean_slots"], profile["mean_slots"])
        code, text, errors = support.run("inspect", support.MODEL, "--profile", self.out)
        self.assertEqual(code, 0, errors)
        self.assertIn("Parameters", text)
        self.assertNotIn("another file", text)
        code, _, errors = support.run("inspect", "tiny", "--load-format", "dummy", "--profile", self.out)
        self.assertEqual(code, 2)
        self.assertIn("--profile", errors)

    def test_bad_input(self):
        self.out.write_text("{}")
        for arguments, code, said in (
                (["profile", support.MODEL], 2, "--text"), (["profile", support.MODEL, "--text", "no-such.txt"], 1, "no-such.txt"),
                (["profile", support.MODEL, "--text", self.text, "--length", "5000", *support.SMALL], 2, "--length"),
                (["profile", support.MODEL, "--text", self.text, "--length", "1000", "--max-tokens", "50", *support.SMALL], 2, "--length"),
                (["profile", support.MODEL, "--text", "/dev/null", *support.SMALL], 2, "--text"),
                (["profile", support.MODEL, "--text", self.text, "--out", self.folder / "p.svg", *support.SMALL], 2, "--svg"),
                (["inspect", "--profile", self.out], 1, "profile.json"), (["inspect", "--profile", "no-such.json"], 1, "no-such.json"),
                (["inspect", support.MODEL, "--profile-length", "5"], 2, "--profile")):
            with self.subTest(said):
                got, _, errors = support.run(*arguments)
                self.assertEqual(got, code, errors)
                self.assertIn(said, errors)
                self.assertEqual(len(errors.strip().splitlines()), 1, errors)


if __name__ == "__main__":
    support.main()
