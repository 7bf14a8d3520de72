"""The tokenizer's files, which a Megatron checkpoint does not hold: copied from where --tokenizer says."""
import json
import os
import shutil

from failure import Refused
from safetensors import read_json

COPIED = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
LLAMA_2 = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
           "unk_token": "<unk>"}


def files_of(path):
    """{name in the model's folder: path} of a tokenizer.model, a tokenizer.json, or a folder with one of them."""
    if os.path.isdir(path):
        found = {name: os.path.join(path, name) for name in COPIED if os.path.isfile(os.path.join(path, name))}
        if "tokenizer.model" not in found and "tokenizer.json" not in found:
            raise Refused(f"--tokenizer {path}: no tokenizer.model and no tokenizer.json in it")
        return found
    if not os.path.isfile(path):
        raise Refused(f"--tokenizer {path}: no such file")
    name = {".model": "tokenizer.model", ".json": "tokenizer.json"}.get(os.path.splitext(path)[1])
    if name is None:
        raise Refused(f"--tokenizer {path}: should be a .model (sentencepiece), a .json, or a folder with one of them")
    return {name: path}


def copy(files, folder):
    """Copies them; beside a bare tokenizer.model goes Llama 2's tokenizer_config.json, which prepends BOS."""
    for name, path in files.items():
        shutil.copyfile(path, os.path.join(folder, name))
    if "tokenizer.model" in files and "tokenizer_config.json" not in files:
        with open(os.path.join(folder, "tokenizer_config.json"), "x", encoding="utf-8") as file:
            json.dump(LLAMA_2, file, indent=2)
            file.write("\n")


def token_ids(path, llama_2):
    """{bos_token_id, eos_token_id} for config.json: of a config.json in the tokenizer's folder, else Llama 2's when it is one."""
    beside = os.path.join(path, "config.json") if path and os.path.isdir(path) else ""
    if os.path.isfile(beside):
        config = read_json(beside)
        return {name: config[name] for name in ("bos_token_id", "eos_token_id") if config.get(name) is not None}
    return {"bos_token_id": 1, "eos_token_id": 2} if llama_2 else {}
