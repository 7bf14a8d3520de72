#!/usr/bin/env python3
"""EleutherAI's lm-eval, unmodified, started by `accrete eval tasks` on the task files in lm_eval/.

Needs an environment with it, 0.8 GB: bash tests/e2e/make_venv.sh ENV lm_eval/requirements.txt, then ACCRETE_LM_EVAL=ENV/bin/python. Skips without.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import support

PYTHON = os.environ.get("ACCRETE_LM_EVAL", "")
TASKS = pathlib.Path(__file__).parent / "lm_eval"


class LmEval(unittest.TestCase):
    def test_all_kinds_of_task(self):
        with support.serve("--served-model-name", "smol") as server, tempfile.TemporaryDirectory() as folder:
            server.wait_healthy()
            command = [support.BINARY, "eval", "tasks", "--port", str(server.port), "--host", "127.0.0.1", "--tasks", "accrete_facts,accrete_text,accrete_words",
                       "--include-path", ".", "--output-path", folder, "--python", PYTHON]
            done = subprocess.run(command, cwd=TASKS, capture_output=True, text=True, timeout=900, check=False, env=dict(os.environ, HF_HOME=folder))
            self.assertEqual(done.returncode, 0, done.stderr[-4000:])
            print(done.stdout)
            found = next(pathlib.Path(folder).rglob("results_*.json"))
            results = json.loads(found.read_text())["results"]
        self.assertGreater(results["accrete_facts"]["acc,none"], 0.5)
        self.assertLess(results["accrete_text"]["byte_perplexity,none"], 4)
        self.assertGreater(results["accrete_words"]["exact_match,first_word"], 0.5)


if __name__ == "__main__":
    if not PYTHON:
        print("skipped: ACCRETE_LM_EVAL names no Python with lm-eval (tests/e2e/make_venv.sh ENV lm_eval/requirements.txt)")
        sys.exit(support.SKIPPED)
    support.main()
