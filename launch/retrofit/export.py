"""Writes what was trained: a PEFT adapter, or a Hugging Face directory; both with the `dmc` block."""
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

from retrofit.model_files import LINEARS
from retrofit.weights import DECISION_KINDS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
                   "chat_template.jinja", "vocab.json", "merges.txt")


def dmc_block(target_cr, window, offset):
    return {"target_cr": target_cr, "window": window, "offset": offset}


def write_json(path, fields):
    pathlib.Path(path).write_text(json.dumps(fields, indent=2) + "\n")


def replace_folder(folder, fill):
    """Fills a new folder and puts it in the old one's place."""
    folder = pathlib.Path(folder)
    scratch, old = (folder.with_name(folder.name + end) for end in (".new", ".old"))
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    fill(scratch)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def adapter_pair(weights, kind):
    """A [L, r', in] and B [L, out, r'] with W = W0 + B A. Decision rows are pairs of their own: a unit vector times the change."""
    a, b = (weights.parameters[f"{kind}.{half}"].detach() for half in "AB")
    if kind not in DECISION_KINDS:
        return a, b
    rows, base = weights.rows[kind], weights.base[kind]
    b = b.clone()
    b[:, rows] = 0
    unit = torch.zeros(b.shape[0], b.shape[1], len(rows), device=b.device)
    unit[:, rows, torch.arange(len(rows), device=b.device)] = 1
    change = weights.parameters[f"{kind}.rows"].detach() - base[:, rows]
    return torch.cat([a, change], 1), torch.cat([b, unit], 2)


def save_adapter(weights, folder, dmc, base_name):
    tensors, ranks = {}, {}
    for kind, inner in LINEARS.items():
        a, b = adapter_pair(weights, kind)
        ranks[inner.split(".")[-1]] = a.shape[1]
        for layer in range(a.shape[0]):
            stem = f"base_model.model.model.layers.{layer}.{inner}"
            tensors[f"{stem}.lora_A.weight"] = a[layer].to(weights.dtype).contiguous().cpu()
            tensors[f"{stem}.lora_B.weight"] = b[layer].to(weights.dtype).contiguous().cpu()
    other = {name: rank for name, rank in ranks.items() if rank != weights.rank}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "r": weights.rank,
              "lora_alpha": weights.rank, "rank_pattern": other, "alpha_pattern": other, "target_modules": sorted(ranks),
              "bias": "none", "lora_dropout": 0.0, "inference_mode": True, "dmc": dmc}

    def fill(scratch):
        save_file(tensors, scratch / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(scratch / "adapter_config.json", config)

    replace_folder(folder, fill)


def save_model(weights, checkpoint, folder, dmc):
    """Full weights, in bf16 (float32 when trained so)."""
    with torch.no_grad():
        step = {name: tensor.detach().cpu() for name, tensor in weights.step_tensors().items()}
    tensors = {"model.embed_tokens.weight": step["embedding"], "model.norm.weight": step["final_norm"]}
    if not checkpoint.config.tied:
        tensors["lm_head.weight"] = step["output"]
    inner = {**LINEARS, "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for name, part in inner.items():
        for layer in range(checkpoint.config.layers):
            tensors[f"model.layers.{layer}.{part}.weight"] = step[name][layer].clone()
    fields = {**checkpoint.json, "dmc": dmc, "torch_dtype": str(weights.dtype).removeprefix("torch.")}

    def fill(scratch):
        save_file({name: t.contiguous() for name, t in tensors.items()}, scratch / "model.safetensors", metadata={"format": "pt"})
        write_json(scratch / "config.json", fields)
        if checkpoint.path.is_dir():
            for name in TOKENIZER_FILES:
                if (checkpoint.path / name).is_file():
                    shutil.copy(checkpoint.path / name, scratch / name)
        else:
            write_tokenizer(checkpoint.path, scratch)

    replace_folder(folder, fill)


def write_tokenizer(gguf_path, folder):
    from retrofit import text
    text.tokenizer_of(gguf_path).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", text.tokenizer_config(gguf_path))
