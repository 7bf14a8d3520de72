"""Reads back what a retrofit wrote, for measuring: the base with an adapter merged, or a full directory, and its `dmc` block."""
import dataclasses
import json
import pathlib

from retrofit import model_files


def open_retrofitted(base, folder):
    """base: what the adapter was trained on -> Checkpoint, {"target_cr", "window", "offset"}"""
    folder = pathlib.Path(folder)
    if (folder / "adapter_config.json").is_file():
        return merged(model_files.open_checkpoint(base), folder)
    checkpoint = model_files.open_checkpoint(folder)
    return checkpoint, block(checkpoint.json, folder)


def block(fields, folder):
    if "dmc" not in fields:
        raise model_files.ModelFileError(f"{folder}: no dmc block; the model was not retrofitted")
    return fields["dmc"]


def merged(checkpoint, folder):
    from safetensors.torch import load_file
    fields = json.loads((folder / "adapter_config.json").read_text())
    dmc, pairs, tensors = block(fields, folder), load_file(folder / "adapter_model.safetensors"), dict(checkpoint.tensors)
    for name, a in pairs.items():
        if not name.endswith(".lora_A.weight"):
            continue
        stem = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        kind = stem.split(".")[-1]
        scale = fields["alpha_pattern"].get(kind, fields["lora_alpha"]) / fields["rank_pattern"].get(kind, fields["r"])
        b = pairs[name.replace("lora_A", "lora_B")]
        if f"{stem}.weight" not in tensors or tensors[f"{stem}.weight"].shape != (b.shape[0], a.shape[1]):
            raise model_files.ModelFileError(f"{folder}: {name} does not fit {checkpoint.path}")
        tensors[f"{stem}.weight"] = tensors[f"{stem}.weight"] + scale * (b.float() @ a.float())
    return dataclasses.replace(checkpoint, tensors=tensors), dmc
