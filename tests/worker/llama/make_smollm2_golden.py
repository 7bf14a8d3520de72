"""Makes tests/golden/llama/smollm2_reference.json: what llama.cpp computes with SmolLM2's weights.

    pip install llama-cpp-python gguf
    python make_smollm2_golden.py SmolLM2-135M-Instruct.Q4_1.gguf ../../golden/llama/wonderland.txt ../../golden/llama/smollm2_reference.json

The quantized tensors are first written out as float32 and the cache is kept in float32, so that both sides compute with the same weights
in the same precision. Greedy continuations carry the five highest logits of each step; the text carries every token's log probability.
"""
import ctypes
import json
import math
import os
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np

PROMPTS = [
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The three laws of thermodynamics are",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Once upon a time, in a village by the sea, there lived a clockmaker who",
    "Q: If a train travels 60 miles in 90 minutes, what is its average speed in miles per hour?\nA:",
]
NEW_TOKENS = 64
BEST = 5


def write_f32(source, target):
    """The same GGUF with every tensor as float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = 0 if field.name == "general.file_type" else field.contents()
        kind = field.types[0]
        writer.add_key_value(field.name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, values.reshape(tensor.shape[::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Reference:
    def __init__(self, path):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def context(self):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 2048, 2048, 512
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = 0
        params.n_threads = params.n_threads_batch = os.cpu_count()
        return llama_cpp.llama_init_from_model(self.model, params)

    def tokenize(self, text):
        ids = (llama_cpp.llama_token * 4096)()
        raw = text.encode()
        count = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), ids, 4096, False, True)
        return list(ids[:count])

    def logits(self, context, ids, begin):
        """[len(ids), V] for ids at positions begin and on."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = token, begin + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert llama_cpp.llama_decode(context, batch) == 0
        values = llama_cpp.llama_get_logits(context)
        rows = np.ctypeslib.as_array(ctypes.cast(values, ctypes.POINTER(ctypes.c_float)), (len(ids), self.size)).copy()
        llama_cpp.llama_batch_free(batch)
        return rows

    def greedy(self, prompt):
        context = self.context()
        ids, generated, best, deviation = self.tokenize(prompt), [], [], []
        row = self.logits(context, ids, 0)[-1]
        for _ in range(NEW_TOKENS):
            order = np.argsort(-row, kind="stable")[:BEST]
            best.append([[int(i), round(float(row[i]), 5)] for i in order])
            generated.append(int(order[0]))
            deviation.append(float(row.std()))
            row = self.logits(context, generated[-1:], len(ids) + len(generated) - 1)[0]
        llama_cpp.llama_free(context)
        return {"prompt": ids, "generated": generated, "best": best, "logit_deviation": round(float(np.mean(deviation)), 3)}

    def score(self, text):
        context = self.context()
        ids = self.tokenize(text)
        rows = self.logits(context, ids, 0).astype(np.float64)
        shifted = rows - rows.max(axis=1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        own = [float(logprobs[i, ids[i + 1]]) for i in range(len(ids) - 1)]
        llama_cpp.llama_free(context)
        return {"ids": ids, "logprobs": [round(value, 5) for value in own], "perplexity": math.exp(-np.mean(own))}


model, text, output = sys.argv[1:]
with tempfile.TemporaryDirectory() as directory:
    path = directory + "/f32.gguf"
    write_f32(model, path)
    reference = Reference(path)
    result = {
        "made_with": f"llama-cpp-python {llama_cpp.__version__}, float32 weights and cache",
        "continuations": [reference.greedy(prompt) for prompt in PROMPTS],
        "text": reference.score(open(text, encoding="utf-8").read()),
    }
with open(output, "w") as file:
    json.dump(result, file, separators=(",", ":"))
print(len(result["text"]["ids"]), "tokens, perplexity", result["text"]["perplexity"])
gaps = [min(b[0][1] - b[1][1] for b in c["best"]) for c in result["continuations"]]
print("smallest gap between the two best logits of each continuation:", gaps)
