#!/usr/bin/env python3
"""Bad flags end with 2, a broken world with 1, each with one line on stderr that names the flag."""
import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

import support


class Usage(unittest.TestCase):
    def expect(self, code, flag, *arguments, **options):
        got, _, errors = support.run(*arguments, **options)
        self.assertEqual(got, code, errors)
        self.assertIn(flag, errors)
        self.assertNotIn("terminate called", errors)
        return errors

    def test_bad_flags(self):
        for arguments, flag in [
            (["serve", "--colour", "red"], "--colour"),
            (["serve", support.MODEL, "--port", "70000"], "--port"),
            (["serve", support.MODEL, "--max-num-seqs", "many"], "--max-num-seqs"),
            (["serve", support.MODEL, "--max-num-seqs", "32769"], "--max-num-seqs"),
            (["serve", support.MODEL, "--max-num-batched-tokens", "1048577"], "--max-num-batched-tokens"),
            (["generate", support.MODEL, "--prompt", "x", "--dmc", "sometimes"], "--dmc"),
            (["serve", support.MODEL, "--tensor-parallel-size", "4"], "--tensor-parallel-size"),
            (["serve", support.MODEL, "--pipeline-parallel-size", "31"], "--pipeline-parallel-size"),
            (["generate", support.MODEL, "--prompt", "x", "-tp", "4"], "--tensor-parallel-size"),
            (["worker", support.MODEL, "-tp", "2"], "2"),
        ]:
            with self.subTest(" ".join(arguments)):
                errors = self.expect(2, flag, *arguments)
                self.assertEqual(len(errors.strip().splitlines()), 1, errors)

    def test_environment_and_file(self):
        self.expect(2, "--port", "serve", support.MODEL, extra_env={"ACCRETE_PORT": "none"})
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("colour: red\n")
            file.flush()
            self.expect(2, "colour", "serve", support.MODEL, "--config", file.name)

    def test_missing_and_truncated_models(self):
        self.expect(1, "no-such.gguf", "serve", "no-such.gguf")
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(pathlib.Path(support.MODEL).read_bytes()[:100000])
            file.flush()
            self.expect(1, os.path.basename(file.name), "serve", file.name)
            self.expect(1, os.path.basename(file.name), "generate", file.name, "--prompt", "x")

    def test_busy_port(self):
        with socket.socket() as busy:
            busy.bind(("127.0.0.1", 0))
            busy.listen()
            port, (rpc_port,) = busy.getsockname()[1], support.free_ports(1)
            self.expect(1, str(port), "serve", support.MODEL, "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port)
            self.expect(1, str(port), "coordinator", "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port)

    def test_wrong_number_of_ranks_is_said_once(self):
        command = support.mpirun("3", support.BINARY, "worker", support.MODEL, "-tp", "2", "-pp", "2")
        with support.Job(command) as job:
            self.assertEqual(job.exit_code(20), 2)
            self.assertEqual(job.output().count("accrete worker: error:"), 1, job.output())
            line = next(l for l in job.output().splitlines() if "accrete worker: error:" in l)
            for number in ("3", "2", "4"):
                self.assertIn(number, line)
            job.expect_gone(5)

    def test_default_model_needs_no_network_once_it_is_there(self):
        name, digest = "SmolLM2-135M-Instruct.Q4_1.gguf", hashlib.sha256(pathlib.Path(support.MODEL).read_bytes()).hexdigest()
        if digest != "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53":
            self.skipTest("ACCRETE_TEST_MODEL is not the default model")
        with tempfile.TemporaryDirectory() as cache:
            shutil.copy(support.MODEL, pathlib.Path(cache) / name)
            nowhere = {"ACCRETE_CACHE": cache, "PIP_INDEX_URL": "http://127.0.0.1:1", "ACCRETE_LAUNCH_DIR": str(support.ROOT / "launch")}
            for _ in range(2):  # checks the copy's hash, then trusts its stamp
                code, text, errors = support.run("generate", "--raw", "--prompt", "The capital of France is", "--max-tokens", "16",
                                                 *support.SMALL, extra_env=nowhere)
                self.assertEqual(code, 0, errors)
                self.assertIn("Paris", text)
                self.assertIn("CR 4 (the model's own)", errors)
            _, _, errors = support.run("generate", "--raw", "--dmc", "off", "--prompt", "x", "--max-tokens", "1", *support.SMALL, extra_env=nowhere)
            self.assertIn("CR 1 (no compression)", errors)
            code, _, errors = support.run("generate", "--raw", "--dmc-synthetic-cr", "2", "--prompt", "x", "--max-tokens", "1", *support.SMALL, extra_env=nowhere)
            self.assertEqual(code, 0, errors)
            self.assertIn("SYNTHETIC", errors.upper())

    def test_version_and_help(self):
        self.assertEqual(support.run("--version")[0], 0)
        self.assertIn("--tensor-parallel-size", support.run("serve", "--help")[1])


if __name__ == "__main__":
    support.main()
