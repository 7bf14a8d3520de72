"""Reads a Llama from a Hugging Face directory or a GGUF file, tensors by their Hugging Face names in float32."""
import dataclasses
import json
import pathlib

import numpy as np
import torch

LINEARS = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
           "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
GGUF_NAMES = {"attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o", "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down"}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


class ModelFileError(Exception):
    pass


@dataclasses.dataclass
class Config:
    hidden: int
    mlp: int
    layers: int
    query_heads: int
    kv_heads: int
    head_size: int
    vocab: int
    norm_eps: float
    rope_theta: float
    tied: bool
    max_position: int
    rope_scaling: dict | None = None


@dataclasses.dataclass
class Checkpoint:
    path: pathlib.Path
    config: Config
    tensors: dict   # Hugging Face name -> float32 tensor
    json: dict      # what config.json holds, or would hold


def open_checkpoint(path):
    path = pathlib.Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise ModelFileError(f"{path}: no such model")
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelFileError(f"{path}: neither a Hugging Face directory nor a GGUF file")
    try:
        return read_directory(path) if path.is_dir() else read_gguf(path)
    except (ModelFileError, MemoryError):
        raise
    except Exception as error:  # whatever the readers make of damaged files
        raise ModelFileError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def config_of_json(fields, where):
    if "LlamaForCausalLM" not in fields.get("architectures", ["LlamaForCausalLM"]):
        raise ModelFileError(f"{where}: architectures is {fields['architectures']}; only LlamaForCausalLM is supported")
    for name in ("attention_bias", "mlp_bias"):
        if fields.get(name):
            raise ModelFileError(f"{where}: {name} is true; biases are not supported")
    scaling = fields.get("rope_scaling") or fields.get("rope_parameters")
    if scaling:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind not in ("default", "llama3"):
            raise ModelFileError(f"{where}: rope_type is {kind}; only default and llama3 are supported")
        fields = {"rope_theta": scaling.get("rope_theta", 10000.0), **fields}
        scaling = None if kind == "default" else scaling
    heads = fields["num_attention_heads"]
    return Config(
        hidden=fields["hidden_size"], mlp=fields["intermediate_size"], layers=fields["num_hidden_layers"], query_heads=heads,
        kv_heads=fields.get("num_key_value_heads", heads), head_size=fields.get("head_dim") or fields["hidden_size"] // heads,
        vocab=fields["vocab_size"], norm_eps=fields.get("rms_norm_eps", 1e-6), rope_theta=fields.get("rope_theta", 10000.0),
        tied=fields.get("tie_word_embeddings", False), max_position=fields.get("max_position_embeddings", 2048), rope_scaling=scaling)


def read_directory(path):
    from safetensors.torch import load_file
    if not (path / "config.json").is_file():
        raise ModelFileError(f"{path}: no config.json")
    fields = json.loads((path / "config.json").read_text())
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise ModelFileError(f"{path}: no model*.safetensors")
    tensors = {name: tensor.float() for file in files for name, tensor in load_file(file).items()}
    return checked(Checkpoint(path, config_of_json(fields, path / "config.json"), tensors, fields))


def read_gguf(path):
    import gguf
    reader = gguf.GGUFReader(path)
    get = lambda name, default=None: reader.fields[name].contents() if name in reader.fields else default
    if get("general.architecture") != "llama":
        raise ModelFileError(f"{path}: general.architecture is {get('general.architecture')}; only llama is supported")
    heads, hidden = get("llama.attention.head_count"), get("llama.embedding_length")
    stored = {tensor.name: tensor for tensor in reader.tensors}
    if "rope_freqs.weight" in stored:
        raise ModelFileError(f"{path}: scaled rotary frequencies are not supported here; use the Hugging Face directory")
    fields = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
        "intermediate_size": get("llama.feed_forward_length"), "num_hidden_layers": get("llama.block_count"),
        "num_attention_heads": heads, "num_key_value_heads": get("llama.attention.head_count_kv", heads),
        "head_dim": get("llama.rope.dimension_count", hidden // heads), "vocab_size": stored["token_embd.weight"].shape[1].item(),
        "rms_norm_eps": float(np.float32(get("llama.attention.layer_norm_rms_epsilon"))), "rope_theta": get("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in stored, "max_position_embeddings": get("llama.context_length"),
        "bos_token_id": get("tokenizer.ggml.bos_token_id", 1), "eos_token_id": get("tokenizer.ggml.eos_token_id", 2)}
    fields["rms_norm_eps"] = float(f"{fields['rms_norm_eps']:.6g}")
    config = config_of_json(fields, path)
    tensors = {hf_name(name): gguf_values(tensor, config) for name, tensor in stored.items()}
    return checked(Checkpoint(path, config, tensors, fields))


def hf_name(name):
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
    if name in whole:
        return whole[name]
    _, layer, part, _ = name.split(".")
    inner = NORMS[part] if part in NORMS else LINEARS[GGUF_NAMES[part]]
    return f"model.layers.{layer}.{inner}.weight"


def gguf_values(tensor, config):
    """Dequantized, and for q and k with the rows of each head put back from pairs (2i, 2i + 1) to halves (i, i + D/2)."""
    import gguf
    values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32))
    if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
        values = values.view(-1, config.head_size // 2, 2, values.shape[-1]).transpose(1, 2).reshape(values.shape)
    return values


def checked(checkpoint):
    c, tensors = checkpoint.config, checkpoint.tensors
    want = {"model.embed_tokens.weight": (c.vocab, c.hidden), "model.norm.weight": (c.hidden,)}
    for layer in range(c.layers):
        for short, (rows, columns) in linear_shapes(c).items():
            want[f"model.layers.{layer}.{LINEARS[short]}.weight"] = (rows, columns)
    for name, shape in want.items():
        if name not in tensors:
            raise ModelFileError(f"{checkpoint.path}: tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise ModelFileError(f"{checkpoint.path}: tensor {name} is {list(tensors[name].shape)}, not {list(shape)}")
    if c.rope_scaling and c.rope_scaling.get("rope_type", c.rope_scaling.get("type")) != "llama3":
        raise ModelFileError(f"{checkpoint.path}: rope_scaling other than llama3 is not supported here")
    return checkpoint


def linear_shapes(c):
    q, kv = c.query_heads * c.head_size, c.kv_heads * c.head_size
    return {"q": (q, c.hidden), "k": (kv, c.hidden), "v": (kv, c.hidden), "o": (c.hidden, q),
            "gate": (c.mlp, c.hidden), "up": (c.mlp, c.hidden), "down": (c.hidden, c.mlp)}
