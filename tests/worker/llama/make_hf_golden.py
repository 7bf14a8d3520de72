"""Makes tests/golden/llama/hf_*.safetensors: logits of tiny Llamas as Hugging Face transformers computes them.

    python make_hf_golden.py OUTPUT_DIRECTORY        (needs torch and transformers)

The weights are drawn by a hash of (tensor name, index), which tests/worker/llama/seeded_source.cpp draws again in C++; every value has at
most eight significant bits, so that float32 and bfloat16 hold the same numbers. The model runs in float64.
"""
import json
import math
import sys

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

TOKENS = 40
VOCAB = 96
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
MODELS = {
    "mha_d64": dict(hidden=128, mlp=160, query_heads=2, kv_heads=2, head_size=64, rope=ROPE, tied=False),
    "gqa_d64": dict(hidden=192, mlp=192, query_heads=6, kv_heads=2, head_size=64, rope=ROPE, tied=False),
    "mha_d128": dict(hidden=256, mlp=320, query_heads=2, kv_heads=2, head_size=128, rope=ROPE, tied=False),
    "gqa_d128": dict(hidden=128, mlp=160, query_heads=8, kv_heads=2, head_size=128, rope=ROPE, tied=False),
    "gqa_d64_llama3_tied": dict(hidden=128, mlp=160, query_heads=4, kv_heads=2, head_size=64, rope=LLAMA3, tied=True),
    "gqa_d64_linear": dict(hidden=144, mlp=160, query_heads=9, kv_heads=3, head_size=64, rope=LINEAR, tied=False),
}
LAYERS = 2


def drawn(name, count):
    """count values (2k - 255) / 256, k a byte of splitmix64(fnv1a(name) + index)."""
    key = 0xCBF29CE484222325
    for byte in name.encode():
        key = (key ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    with np.errstate(over="ignore"):
        z = np.uint64(key) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (2.0 * (z >> np.uint64(56)).astype(np.float64) - 255.0) / 256.0


def weight(name, shape):
    values = drawn(name, int(np.prod(shape)))
    if name.endswith("norm.weight"):
        return (1.0 + values / 4).reshape(shape)
    if "embed_tokens" in name:
        return values.reshape(shape)
    return (values * 2.0 ** math.floor(math.log2(2 / math.sqrt(shape[1])) + 0.5)).reshape(shape)


def golden(name, model, directory):
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=model["hidden"], intermediate_size=model["mlp"], num_hidden_layers=LAYERS,
                         num_attention_heads=model["query_heads"], num_key_value_heads=model["kv_heads"], head_dim=model["head_size"],
                         max_position_embeddings=512, rms_norm_eps=1e-5, rope_parameters=dict(model["rope"]),
                         tie_word_embeddings=model["tied"], attn_implementation="eager")
    assert config.rope_parameters["rope_type"] == model["rope"]["rope_type"]
    network = LlamaForCausalLM(config).double().eval()
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key != "lm_head.weight" or not model["tied"]:
                tensor.copy_(torch.from_numpy(weight(key, tuple(tensor.shape))))
        ids = ((drawn("prompt " + name, TOKENS) * 256 + 255) / 2).astype(np.int64) % VOCAB
        logits = network(torch.from_numpy(ids)[None]).logits[0].double().numpy()
    described = dict(model, vocab=VOCAB, layers=LAYERS, rms_norm_eps=1e-5)
    save_file({"ids": ids.astype(np.int32), "logits": logits.astype(np.float32)}, f"{directory}/hf_{name}.safetensors",
              metadata={"config": json.dumps(described)})
    print(name, "logits", logits.std(), np.abs(logits).max(), "inv_freq", network.model.rotary_emb.inv_freq[-3:])


for each, shape in MODELS.items():
    golden(each, shape, sys.argv[1])
