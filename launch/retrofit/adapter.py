"""Reads back what a retrofit wrote: for measuring, the base with an adapter merged, or a full directory, and its `dmc` block; for going on,
the adapter as the parameters that are trained."""
import dataclasses
import json
import pathlib

import torch

from retrofit import model_files
from retrofit.weights import DECISION_KINDS, decision_rows


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


def parameters(checkpoint, folder):
    """What export.save_adapter wrote -> {name: tensor} of weights.Weights.parameters with the adapter's rank."""
    from safetensors.torch import load_file
    folder, found = pathlib.Path(folder), {}
    try:
        rank, tensors = json.loads((folder / "adapter_config.json").read_text())["r"], load_file(folder / "adapter_model.safetensors")
        stack = lambda inner, half: torch.stack([tensors[f"base_model.model.model.layers.{i}.{inner}.lora_{half}.weight"].float()
                                                 for i in range(checkpoint.config.layers)])
        for kind, inner in model_files.LINEARS.items():
            a, b = stack(inner, "A"), stack(inner, "B")
            found[f"{kind}.A"], found[f"{kind}.B"] = a[:, :rank], b[:, :, :rank]
            if kind in DECISION_KINDS:
                base = torch.stack([checkpoint.tensors[f"model.layers.{i}.{inner}.weight"] for i in range(checkpoint.config.layers)])
                found[f"{kind}.rows"] = base[:, decision_rows(checkpoint.config, kind)] + a[:, rank:]
    except Exception as error:  # whatever damaged files make of it
        raise model_files.ModelFileError(f"{folder}: no adapter of a retrofit of this model ({type(error).__name__}: {error})") from error
    return found
