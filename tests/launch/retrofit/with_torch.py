"""What the tests with PyTorch share: finding a Python that has it, a tiny Llama of bytes that decides, the package's own forward pass."""
import importlib.util
import json
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "launch"), str(ROOT / "tests" / "e2e")]
PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "gguf")
SKIPPED = 77


def main_needs_torch(script):
    """Goes on with a Python that has what the package needs, or ends as skipped."""
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    other = os.environ.pop("ACCRETE_PYTHON", "") if lacking else ""
    if lacking and other:
        os.execvp(other, [other, "-B", script])
    if lacking:
        print(f"skipped: {', '.join(lacking)} not installed for this Python; ACCRETE_PYTHON may name one that has PyTorch")
        sys.exit(SKIPPED)
    import torch
    torch.set_num_threads(1)


SHAPE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 64,
         "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 256, "rms_norm_eps": 1e-5,
         "rope_theta": 10000.0, "tie_word_embeddings": True, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2}


def tiny_model(folder):
    """A Hugging Face directory with random weights and a token for each byte."""
    import torch
    from safetensors.torch import save_file
    from tiny_megatron import byte_tokenizer
    folder, generator = pathlib.Path(folder), torch.Generator().manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    draw = lambda *shape, scale: torch.randn(*shape, generator=generator) * scale
    e, f, q, kv = SHAPE["hidden_size"], SHAPE["intermediate_size"], 6 * 16, 2 * 16
    tensors = {"model.embed_tokens.weight": draw(256, e, scale=0.4), "model.norm.weight": torch.ones(e)}
    for layer in range(SHAPE["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, shape in {"self_attn.q_proj": (q, e), "self_attn.k_proj": (kv, e), "self_attn.v_proj": (kv, e), "self_attn.o_proj": (e, q),
                            "mlp.gate_proj": (f, e), "mlp.up_proj": (f, e), "mlp.down_proj": (e, f)}.items():
            tensors[f"{at}{name}.weight"] = draw(*shape, scale=shape[1] ** -0.5)
        tensors[f"{at}input_layernorm.weight"] = tensors[f"{at}post_attention_layernorm.weight"] = torch.ones(e)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(SHAPE))
    byte_tokenizer(folder / "tokenizer.json")
    return folder


def token_file(path, text, documents=40):
    """The same text from various beginnings, each a document."""
    import numpy as np
    data = text.encode("ascii")
    parts = [np.frombuffer(data[i * 7:i * 7 + 60 + i], np.uint8).astype(np.uint16) for i in range(documents)]
    np.concatenate([x for part in parts for x in (part, np.array([65535], np.uint16))]).tofile(path)
    return path


def decided_weights(model, rank):
    """Weights of a retrofit whose keys decide both ways in every head, each head at its own rate."""
    import torch
    from retrofit import model_files, weights
    torch.manual_seed(1)
    made = weights.Weights(model_files.open_checkpoint(model), torch.device("cpu"), torch.float32, rank)
    with torch.no_grad():
        for name, parameter in made.parameters.items():
            if name.endswith(".B"):
                parameter.copy_(torch.randn_like(parameter) * 0.02)
        rows = made.parameters["k.rows"]
        rate = torch.linspace(1.0, 4.0, rows[..., 0].numel()).view(rows.shape[:-1]).unsqueeze(-1)
        rows.copy_(torch.randn_like(rows) * rate)
        made.parameters["q.rows"].copy_(torch.randn_like(made.parameters["q.rows"]) * 0.5)
    return made


def network(model, **options):
    import torch
    from retrofit import model_files, student
    given = {"attention": "full", "window": 12, "offset": 5.0, "mix": 0.0, "pieces": 2, "compiled": False, "teacher": True, **options}
    return student.Network(model_files.open_checkpoint(model), given, torch.device("cpu"), torch.float32)
