#!/usr/bin/env python3
"""The requests that lm-eval's local-completions sends, and what it reads of the answers, without lm-eval itself (lm_eval_test.py runs that)."""
import json
import math
import pathlib
import unittest

import support

FACTS = pathlib.Path(__file__).parent / "lm_eval" / "accrete_facts.jsonl"


class LmEvalRequests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = support.serve("--served-model-name", "smol")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)
        cls.server.wait_healthy()

    def ask(self, path, body=None):
        status, answer = self.server.request("GET" if body is None else "POST", path, body)
        self.assertEqual(status, 200, answer)
        return answer

    def encode(self, text):
        return self.ask("/tokenize", {"prompt": text, "add_special_tokens": False})["tokens"]

    def score(self, prompts, context_lengths):
        """(sum of log-likelihoods, whether greedy) of what follows each prompt's context, as lm-eval adds them up."""
        answer = self.ask("/v1/completions", {"model": "smol", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": True})
        scores = []
        for choice, context in zip(sorted(answer["choices"], key=lambda choice: choice["index"]), context_lengths, strict=True):
            logprobs, tops = (choice["logprobs"][name][context:-1] for name in ("token_logprobs", "top_logprobs"))
            scores.append((sum(logprobs), all(one == max(top.values()) for one, top in zip(logprobs, tops, strict=True))))
        return scores

    def test_the_remote_tokenizer(self):
        info = self.ask("/tokenizer_info")
        self.assertEqual((info["bos_token"], info["eos_token"]), ("<|im_start|>", "<|im_end|>"))
        self.assertIn("{%", info["chat_template"])
        self.assertEqual(len(self.encode(info["eos_token"])), 1)
        ids = self.encode("The capital of France is Paris")
        self.assertEqual(self.ask("/detokenize", {"tokens": ids})["prompt"], "The capital of France is Paris")
        self.assertEqual(self.server.request("POST", "/tokenizer_info", {})[0], 405)

    def test_eval_tasks_finds_out_what_lm_eval_must_be_told(self):
        tasks = ["eval", "tasks", "--port", self.server.port, "--tasks", "a,b", "--limit", "3"]
        code, text, errors = support.run(*tasks, "--print")
        self.assertEqual(code, 0, errors)
        for said in ("-m lm_eval run --model local-completions --tasks a,b", f"base_url=http://127.0.0.1:{self.server.port}/v1/completions",
                     "model=smol", "max_length=1024", "tokenizer_backend=remote", "--limit 3"):
            self.assertIn(said, text)
        for flags, expected, said in ((["--python", "/bin/false"], 1, "pip install 'lm-eval[api]'"), (["--api-key", "k"], 2, "--tokenizer"),
                                      (["--print", "--model", "other"], 1, "--model other"), (["--include-path", "no-such-folder"], 2, "no-such-folder")):
            code, _, errors = support.run(*tasks, *flags)
            self.assertEqual(code, expected, errors)
            self.assertIn(said, errors)

    def test_multiple_choice_in_batches(self):
        right, scored = 0, []
        docs = [json.loads(line) for line in FACTS.read_text().splitlines()]
        for doc in docs:
            context = self.encode(doc["question"])
            prompts = [self.encode(doc["question"] + " " + choice) for choice in doc["choices"]]
            self.assertTrue(all(prompt[:len(context)] == context for prompt in prompts), "choices do not change the question's tokens")
            scores = self.score(prompts, [len(context)] * len(prompts))
            scored.append((prompts, scores))
            right += max(range(len(scores)), key=lambda i: scores[i][0]) == doc["answer"]
        self.assertGreater(right, len(docs) / 2, "far above the quarter that chance gives")
        prompts, batched = scored[0]
        for prompt, (likelihood, greedy) in zip(prompts, batched):
            alone, alone_greedy = self.score([prompt], [len(self.encode(docs[0]["question"]))])[0]
            self.assertTrue(math.isclose(alone, likelihood, abs_tol=0.05), "a prompt's score does not depend on its batch, but for rounding")
            self.assertEqual(alone_greedy, greedy)
        self.assertTrue(batched[docs[0]["answer"]][1], "Paris is what greedy decoding says")

    def test_texts_as_prompts_and_rolling_windows(self):
        text = "Once upon a time there was a king"
        ids = self.encode(text)
        by_text, by_ids = (self.score([prompt], [1])[0] for prompt in (text, ids))
        self.assertEqual(by_text, by_ids)
        prefix = self.encode("<|im_start|>")
        rolling = self.score([prefix + ids], [1])[0][0]
        self.assertLess(rolling, by_ids[0], "the first token is scored, too")

    def test_generation(self):
        answer = self.ask("/v1/completions", {"model": "smol", "prompt": [self.encode("The capital of Germany is"), self.encode("One, two, three, four,")],
                                              "max_tokens": 6, "temperature": 0, "stop": ["\n", ".", "<|im_end|>"], "seed": 1234})
        texts = {choice["index"]: choice["text"] for choice in answer["choices"]}
        self.assertIn("Berlin", texts[0])
        self.assertIn("five", texts[1])
        self.assertFalse(any("." in text or "\n" in text for text in texts.values()))


if __name__ == "__main__":
    support.main()
