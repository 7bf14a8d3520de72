"""Makes blocks.safetensors: quantized blocks of every GGUF type and their floats, by the `gguf` Python package.

  python3 make.py        (needs gguf, numpy and safetensors)

Each type has `<TYPE>.bytes` (U8, random blocks) and `<TYPE>.floats` (F32, what the package dequantizes them to). Scales are random
halves, among them a subnormal and a negative one.
"""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, dequantize
from safetensors.numpy import save_file

# Byte offsets of the half-precision fields in a block.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
SCALES = [0.0123, -0.5, 3.0e-6, 1.75]

random = np.random.default_rng(20240817)
tensors = {}
for name, offsets in HALVES.items():
    block, size = GGML_QUANT_SIZES[Type[name]]
    blocks = random.integers(0, 256, (4 if block == 32 else 2, size), dtype=np.uint8)
    for row, data in enumerate(blocks):
        for field, offset in enumerate(offsets):
            scale = np.float16(SCALES[(row + field) % len(SCALES)])
            data[offset:offset + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    tensors[f"{name}.bytes"] = blocks.reshape(-1)
    tensors[f"{name}.floats"] = dequantize(blocks.reshape(-1), Type[name]).astype(np.float32).reshape(-1)

halves = np.arange(0, 65536, 97, dtype=np.uint16)
finite = halves[np.isfinite(halves.view(np.float16))]
tensors["F16.bytes"] = finite.view(np.uint8)
tensors["F16.floats"] = finite.view(np.float16).astype(np.float32)
save_file(tensors, "blocks.safetensors")
