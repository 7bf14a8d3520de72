#!/usr/bin/env python3
"""The official openai client, unmodified, against a TP 2 server: plain, streaming, chat, errors, the list of models."""
import unittest

import support

try:
    import openai
except ImportError:
    openai = None


class OpenAi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = support.serve("-tp", "2", "--api-key", "secret", "--served-model-name", "smol")
        cls.server.__enter__()
        cls.addClassCleanup(cls.server.__exit__, None, None, None)
        cls.server.wait_healthy()
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.server.port}/v1", api_key="secret", max_retries=0, timeout=60)

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["smol"])

    def test_completion(self):
        answer = self.client.completions.create(model="smol", prompt="The capital of France is", max_tokens=6, temperature=0)
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(answer.usage.completion_tokens, 6)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_chat_and_its_stream_agree(self):
        asked = dict(model="smol", messages=[{"role": "user", "content": "Name the capital of France."}], max_tokens=20, temperature=0)
        whole = self.client.chat.completions.create(**asked)
        text = whole.choices[0].message.content
        self.assertIn("Paris", text)
        chunks = list(self.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        self.assertEqual(streamed, text)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices][-1], whole.choices[0].finish_reason)

    def test_sampling_is_reproducible(self):
        asked = dict(model="smol", prompt="A poem about rain:", max_tokens=12, temperature=1.0, top_p=0.9, seed=7)
        first, second = (self.client.completions.create(**asked).choices[0].text for _ in range(2))
        self.assertEqual(first, second)

    def test_errors(self):
        with self.assertRaises(openai.NotFoundError):
            self.client.completions.create(model="other", prompt="x")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.completions.create(model="smol", prompt="x", temperature=-1)
        self.assertIn("temperature", str(caught.exception))
        wrong = self.client.with_options(api_key="guess")
        with self.assertRaises(openai.AuthenticationError):
            wrong.models.list()


if __name__ == "__main__":
    if openai is None:
        print("skipped: the openai package is not installed (tests/e2e/make_venv.sh)")
        raise SystemExit(support.SKIPPED)
    support.main()
