"""Megatron-core checkpoint -> Hugging Face directory."""
import json
import os

import names
import network
import safetensors
import source
import tokenizer
import torch_pickle
from failure import Refused
from place import whole_or_nothing
from progress import Progress
from torch_zip import TorchZip

TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
RANK_FILE = os.path.join("mp_rank_00", "model_optim_rng.pt")


def checkpoint_file(path):
    """The .pt that `path` names: itself, or the one in a checkpoint's folder. Refused for one of several ranks."""
    if not os.path.isdir(path):
        return path
    folder, latest = path, os.path.join(path, "latest_checkpointed_iteration.txt")
    if os.path.isfile(latest):
        with open(latest, encoding="ascii", errors="replace") as file:
            tag = file.read(64).strip()
        if not tag.isdigit() and tag != "release":
            raise Refused(f"{latest}: should hold a number or 'release', holds {tag!r}")
        folder = os.path.join(path, tag if tag == "release" else f"iter_{int(tag):07}")
    ranks = sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if name.startswith("mp_rank_"))
    if len(ranks) > 1:
        raise Refused(f"{folder}: {len(ranks)} ranks ({ranks[0]} to {ranks[-1]}): tensor or pipeline parallel; merge them with Megatron's own tools first")
    file = os.path.join(folder, RANK_FILE)
    if not os.path.isfile(file):
        raise Refused(f"{path}: no checkpoint file and no {RANK_FILE} in it")
    return file


def checked_parts(checkpoint, path):
    """(args, {name: Tensor} without _extra_state, names dropped) of what the pickle held."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("model"), dict):
        raise Refused(f"{path}: holds no 'model'; pipeline stages of a virtual pipeline (model0, ...) are not merged")
    args = checkpoint.get("args")
    if not isinstance(args, torch_pickle.Namespace):
        raise Refused(f"{path}: holds no 'args', without which the network is not known")
    tensors, dropped = {}, []
    for name, value in checkpoint["model"].items():
        if isinstance(name, str) and name.endswith("._extra_state"):
            dropped.append(name)
        elif isinstance(name, str) and isinstance(value, torch_pickle.StoredTensor):
            tensors[name] = value
        else:
            raise Refused(f"{path}: model entry {str(name)[:200]} is no tensor")
    return args, tensors, dropped


def understand(checkpoint, path, vocab):
    """(Network, Arguments, tensors, dropped); everything about the input is checked here, before anything is written."""
    args, tensors, dropped = checked_parts(checkpoint, path)
    arguments = network.Arguments(args, path)
    embedding = tensors.get(names.EMBEDDING)
    if embedding is None or len(embedding.shape) != 2:
        raise Refused(f"{path}: tensor {names.EMBEDDING} is missing or no matrix; only Megatron-core checkpoints are read")
    net = network.from_args(arguments, embedding.shape[0], vocab)
    if net.layers * 6 + 1 > len(tensors):
        arguments.refuse("num_layers", f"is {net.layers}, for which {len(tensors)} tensors are too few")
    names.check_tensors(tensors, names.megatron_shapes(net), path)
    return net, arguments, tensors, dropped


def describe(net, dmc, dtype, dropped):
    parts = f"{net.layers} layers, {net.heads} heads of {net.head_size} in {net.groups} groups, hidden {net.hidden}, MLP {net.mlp}, {dtype}"
    print(f"network: {parts}")
    print(f"vocabulary: {net.vocab} of {net.padded_vocab} rows")
    print(f"dropped: {len(dropped)} _extra_state entries")
    print("dmc: " + ("none in args: a plain Llama" if dmc is None else ", ".join(f"{key} {value:g}" for key, value in dmc.items())))


def write_json(folder, name, value):
    with open(os.path.join(folder, name), "x", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def convert(options):
    """options: src, dst, tokenizer, vocab_size, max_shard_bytes. Prints what it found; Refused when something does not fit."""
    archive = TorchZip(checkpoint_file(options.src))
    checkpoint = torch_pickle.load(archive)
    net, arguments, tensors, dropped = understand(checkpoint, archive.path, options.vocab_size)
    dmc = network.dmc_block(arguments)
    for name in sorted(name for name in arguments.args if name.startswith("dmc_")):
        print(f"args.{name}: {network.shown(arguments.args[name])}")
    files = tokenizer.files_of(options.tokenizer) if options.tokenizer else {}
    llama_2 = net.vocab == network.LLAMA_2_VOCABULARY
    dtype = TORCH_NAMES[tensors[names.EMBEDDING].dtype]
    describe(net, dmc, dtype, dropped)
    assemblies = names.to_hf(tensors, net)
    total = sum(assembly.nbytes for assembly in assemblies.values())
    with whole_or_nothing(options.dst, total) as folder:
        os.mkdir(folder)
        check = Progress("checking", sum(tensor.nbytes for tensor in tensors.values()))
        for name, tensor in tensors.items():
            archive.verify_storage(tensor.key)
            check.add(tensor.nbytes, name)
        check.end()
        progress = Progress("writing", total)
        safetensors.write_directory(folder, assemblies, options.max_shard_bytes, progress)
        progress.end()
        source.write(folder, checkpoint, dropped, source.padding_of(tensors, net))
        tokenizer.copy(files, folder)
        write_json(folder, "config.json", network.config_json(net, dtype, dmc, tokenizer.token_ids(options.tokenizer, llama_2)))
    archive.close()
    print(f"written: {options.dst}, {len(assemblies)} tensors, {total / 1e9:.2f} GB" + ("" if files else "; no tokenizer (--tokenizer)"))
