#!/usr/bin/env python3
"""CMake refuses an edge that the folder graph does not name, and takes one that it does: a tiny copy is configured both ways."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def configure(edges):
    """(exit code, output) of configuring a project of two folders with the real AccreteFolders.cmake."""
    with tempfile.TemporaryDirectory() as folder:
        top = pathlib.Path(folder)
        for name in ("kernels", "cache", "launch"):
            (top / name).mkdir()
        (top / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(tiny LANGUAGES NONE)\n"
            f'include("{ROOT}/cmake/AccreteFolders.cmake")\n' + "".join(f"accrete_folder({name} ON {on})\n" for name, on in edges))
        run = subprocess.run(["cmake", "-G", "Ninja", "-S", str(top), "-B", str(top / "build")], capture_output=True, text=True, check=False)
        return run.returncode, run.stdout + run.stderr


class Graph(unittest.TestCase):
    def test_legal_edge(self):
        code, output = configure([("kernels", '""'), ("cache", "kernels")])
        self.assertEqual(code, 0, output)

    def test_illegal_edges(self):
        for name, on in (("kernels", "cache"), ("cache", "net"), ("coordinator", "worker")):
            code, output = configure([(name, on)])
            self.assertNotEqual(code, 0, f"{name} on {on} was taken")
            self.assertIn(f"{name} may not stand on {on}", " ".join(output.split()))


if __name__ == "__main__":
    sys.exit(unittest.main())
