"""Hugging Face directory -> Megatron-core checkpoint: the reverse of forward.py, byte for byte for what that one made."""
import collections
import contextlib
import os

import names
import network
import safetensors
import source
import torch_write
from failure import Refused
from place import whole_or_nothing
from progress import Progress
from torch_pickle import Namespace


def args_from_config(config, path):
    """Megatron's args for a config.json that did not come from Megatron."""
    def take(name, default=None):
        value = config.get(name, default)
        if type(value) not in (int, float):
            raise Refused(f"{path}: {name} should be a number, is {network.shown(value)}")
        return value
    for name in ("attention_bias", "mlp_bias", "rope_scaling"):
        if config.get(name):
            raise Refused(f"{path}: {name} is set, which Megatron's form of a Llama does not have")
    heads, hidden = take("num_attention_heads"), take("hidden_size")
    args = Namespace(
        num_layers=take("num_hidden_layers"), hidden_size=hidden, ffn_hidden_size=take("intermediate_size"), num_attention_heads=heads,
        group_query_attention=True, num_query_groups=take("num_key_value_heads", heads), kv_channels=take("head_dim", hidden // max(heads, 1)),
        vocab_size=take("vocab_size"), max_position_embeddings=take("max_position_embeddings", 2048), norm_epsilon=take("rms_norm_eps", 1e-6),
        rotary_base=take("rope_theta", 10000.0), swiglu=True, normalization="RMSNorm", position_embedding_type="rope",
        untie_embeddings_and_output_weights=config.get("tie_word_embeddings") is not True,
        tensor_model_parallel_size=1, pipeline_model_parallel_size=1)
    dmc = config.get("dmc")
    if isinstance(dmc, dict):
        args.update(dmc_cr=dmc.get("target_cr", 4.0), dmc_window_size=dmc.get("window", 12), dmc_init_val=dmc.get("offset", 5.0))
    return args


def record_of(folder, files):
    """(source.json's record or one made of config.json, padding)"""
    record, padding = source.read(folder, files)
    path = os.path.join(folder, "config.json")
    config = safetensors.read_json(path)
    if record is None:
        record = {"args": args_from_config(config, path), "iteration": 0, "checkpoint_version": 3.0}
    if not isinstance(record.get("args"), dict):
        raise Refused(f"{os.path.join(folder, source.FOLDER, 'source.json')}: args is missing")
    return record, padding, config.get("vocab_size")


def convert(options):
    """options: src (directory), dst (a new .pt file). Refused when something does not fit."""
    with contextlib.ExitStack() as files:
        record, padding, vocab = record_of(options.src, files)
        arguments = network.Arguments(record["args"], options.src)
        found = safetensors.read_directory(options.src, files)
        padded = vocab + padding[names.EMBEDDING].shape[0] if names.EMBEDDING in padding and type(vocab) is int else vocab
        if type(padded) is not int:
            raise Refused(f"{options.src}: vocab_size of config.json should be a number, is {network.shown(vocab)}")
        net = network.from_args(arguments, padded, vocab)
        names.check_tensors(found, names.hf_shapes(net), options.src)
        for name, rows in padding.items():
            if rows.shape != (net.padded_vocab - net.vocab, net.hidden):
                raise Refused(f"{options.src}: the padding rows of {name} have shape {list(rows.shape)}, should have {[net.padded_vocab - net.vocab, net.hidden]}")
        model = names.to_megatron(found, padding, net)
        total = sum(assembly.nbytes for assembly in model.values())
        checkpoint = {"args": Namespace(record["args"]), "checkpoint_version": record.get("checkpoint_version"),
                      "iteration": record.get("iteration"), "model": collections.OrderedDict(model)}
        with whole_or_nothing(options.dst, total) as path:
            progress = Progress("writing", total)
            torch_write.write(path, checkpoint, progress)
            progress.end()
    print(f"written: {options.dst}, {len(model)} tensors, {total / 1e9:.2f} GB")
