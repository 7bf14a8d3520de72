"""Checkpoints of the form that NVIDIA published, made by the tests: small networks, written without torch and without the code under test.

data.pkl comes from Python's own pickle with classes that carry torch's names, so it has every habit of the real one (memo, batches of
items, enums, BytesIO); the zip from Python's zipfile. What Hugging Face should get is made from the same heads by other code.
"""
import argparse
import collections
import enum
import io
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import types
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "launch" / "convert_megatron"
sys.path.insert(0, str(PACKAGE))


def stand_in(module, name, value):
    """Gives `value` torch's or Megatron's name, so that pickle writes that name."""
    parts = module.split(".")
    for i in range(len(parts)):
        sys.modules.setdefault(".".join(parts[:i + 1]), types.ModuleType(".".join(parts[:i + 1])))
    value.__module__, value.__qualname__, value.__name__ = module, name, name
    setattr(sys.modules[module], name, value)
    return value


class Names:
    """torch's names while a checkpoint is pickled; torch itself is not disturbed when it is there."""
    PARTS = ("torch", "torch._utils", "megatron", "megatron.core", "megatron.core.enums")

    def __enter__(self):
        self.before = {name: sys.modules.pop(name, None) for name in self.PARTS}
        self.rebuild = stand_in("torch._utils", "_rebuild_tensor_v2", lambda *_: None)
        self.storages = {dtype: stand_in("torch", name, type(name, (), {})) for dtype, name in
                         (("BF16", "BFloat16Storage"), ("F16", "HalfStorage"), ("F32", "FloatStorage"), ("U8", "ByteStorage"))}
        self.model_type = stand_in("megatron.core.enums", "ModelType", enum.Enum("ModelType", {"encoder_or_decoder": 1}))
        return self

    def __exit__(self, *_):
        for name, module in self.before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


class FakeTensor:
    """Raw bytes with a type and a shape; view=(offset, storage FakeTensor) shares another's storage."""

    def __init__(self, data, dtype, shape, view=None):
        self.data, self.dtype, self.shape, self.view = data, dtype, tuple(shape), view

    def strides(self):
        strides, count = [], 1
        for size in reversed(self.shape):
            strides.insert(0, count)
            count *= size
        return tuple(strides)


class FakeStorage:
    def __init__(self, tensor):
        self.tensor = tensor


class TorchPickler(pickle.Pickler):
    """Writes FakeTensors as torch.save does; `storages` collects what goes into entries data/KEY."""

    def __init__(self, file, names):
        super().__init__(file, protocol=2)
        self.names, self.storages, self.owners = names, [], []

    def persistent_id(self, obj):
        if not isinstance(obj, FakeStorage):
            return None
        owner = obj.tensor
        if not any(owner is other for other in self.owners):
            self.owners.append(owner)
            self.storages.append(owner.data)
        key = next(i for i, other in enumerate(self.owners) if other is owner)
        items = len(owner.data) // {"F32": 4, "U8": 1}.get(owner.dtype, 2)
        return ("storage", self.names.storages[owner.dtype], str(key), "cpu", items)

    def reducer_override(self, obj):
        if not isinstance(obj, FakeTensor):
            return NotImplemented
        offset, owner = obj.view or (0, obj)
        return self.names.rebuild, (FakeStorage(owner), offset, obj.shape, obj.strides(), False, collections.OrderedDict())


def write_zip(path, data_pkl, storages, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model_optim_rng/data.pkl", data_pkl)
        archive.writestr("model_optim_rng/byteorder", "little")
        for key, data in enumerate(storages):
            archive.writestr(f"model_optim_rng/data/{key}", data)
        archive.writestr("model_optim_rng/version", "3\n")


def save(path, checkpoint):
    """`checkpoint`, a function of Names, as a torch zip."""
    with Names() as names:
        file = io.BytesIO()
        pickler = TorchPickler(file, names)
        pickler.dump(checkpoint(names))
    write_zip(path, file.getvalue(), pickler.storages)


def bf16(source, rows, columns=None, scale=0.05):
    """A FakeTensor of random bf16 numbers."""
    shape = (rows,) if columns is None else (rows, columns)
    count = rows * (columns or 1)
    centre = 1.0 if columns is None else 0.0
    floats = struct.pack(f"<{count}f", *(source.gauss(centre, scale) for _ in range(count)))
    return FakeTensor(b"".join(floats[i + 2:i + 4] for i in range(0, 4 * count, 4)), "BF16", shape)


class Network:
    """A random network: `model` under Megatron's names, `expected` {Hugging Face's name: (shape, bytes)}."""

    def __init__(self, groups=4, tied=False, vocab=256, padded=272, layers=2):
        self.heads, self.groups, self.d, self.hidden, self.mlp, self.layers = 4, groups, 16, 64, 96, layers
        self.vocab, self.padded, self.tied = vocab, padded, tied
        self.source = random.Random(7)
        self.model, self.expected = collections.OrderedDict(), {}
        self._tables()
        for layer in range(layers):
            self._layer(layer)

    def _put(self, name, hf_name, tensor):
        self.model[name] = tensor
        self.expected[hf_name] = (tensor.shape, tensor.data)

    def _tables(self):
        for name, hf_name in (("embedding.word_embeddings.weight", "model.embed_tokens.weight"), ("output_layer.weight", "lm_head.weight")):
            if name == "output_layer.weight" and self.tied:
                continue
            table = bf16(self.source, self.padded, self.hidden)
            self.model[name] = table
            self.expected[hf_name] = ((self.vocab, self.hidden), table.data[:self.vocab * self.hidden * 2])
        self._put("decoder.final_layernorm.weight", "model.norm.weight", bf16(self.source, self.hidden))

    def _layer(self, n):
        ours, theirs, h = f"decoder.layers.{n}.", f"model.layers.{n}.", self.hidden
        queries = [bf16(self.source, self.d, h).data for _ in range(self.heads)]
        keys, values = ([bf16(self.source, self.d, h).data for _ in range(self.groups)] for _ in range(2))
        share, qkv = self.heads // self.groups, b""
        for group in range(self.groups):
            qkv += b"".join(queries[group * share:(group + 1) * share]) + keys[group] + values[group]
        self.model[ours + "self_attention.linear_qkv.weight"] = FakeTensor(qkv, "BF16", ((self.heads + 2 * self.groups) * self.d, h))
        for name, heads in (("q", queries), ("k", keys), ("v", values)):
            self.expected[theirs + f"self_attn.{name}_proj.weight"] = ((len(heads) * self.d, h), b"".join(heads))
        gate, up = bf16(self.source, self.mlp, h), bf16(self.source, self.mlp, h)
        self.model[ours + "mlp.linear_fc1.weight"] = FakeTensor(gate.data + up.data, "BF16", (2 * self.mlp, h))
        self.expected[theirs + "mlp.gate_proj.weight"], self.expected[theirs + "mlp.up_proj.weight"] = (gate.shape, gate.data), (up.shape, up.data)
        self._put(ours + "self_attention.linear_qkv.layer_norm_weight", theirs + "input_layernorm.weight", bf16(self.source, h))
        self._put(ours + "self_attention.linear_proj.weight", theirs + "self_attn.o_proj.weight", bf16(self.source, h, self.heads * self.d))
        self._put(ours + "mlp.linear_fc1.layer_norm_weight", theirs + "post_attention_layernorm.weight", bf16(self.source, h))
        self._put(ours + "mlp.linear_fc2.weight", theirs + "mlp.down_proj.weight", bf16(self.source, h, self.mlp))
        self.model[ours + "mlp.linear_fc1._extra_state"] = io.BytesIO(b"\x80\xff" * 40)
        self.model[ours + "self_attention.core_attention._extra_state"] = None

    def args(self, **changes):
        """args as Megatron keeps them, with what the converter looks at and a little that it does not."""
        values = dict(
            num_layers=self.layers, hidden_size=self.hidden, ffn_hidden_size=self.mlp, num_attention_heads=self.heads,
            group_query_attention=self.groups != self.heads, num_query_groups=self.groups if self.groups != self.heads else 1, kv_channels=self.d,
            vocab_size=self.vocab, padded_vocab_size=self.padded, max_position_embeddings=512, seq_length=512, norm_epsilon=1e-5,
            rotary_base=10000, rotary_percent=1.0, rotary_interleaved=False, rotary_seq_len_interpolation_factor=None, swiglu=True,
            normalization="RMSNorm", position_embedding_type="rope", add_bias_linear=False, apply_layernorm_1p=False, num_experts=None,
            untie_embeddings_and_output_weights=not self.tied, tensor_model_parallel_size=1, pipeline_model_parallel_size=1,
            tokenizer_type="Llama2Tokenizer", consumed_train_samples=1 << 40, data_path=["a", "b"], lr=3e-5,
            dmc_cr=4.0, dmc_window_size=12, dmc_init_val=5.0, dmc_temp=0.1, dmc_finetune=True, dmc_is_stage_one=False)
        values.update(changes)
        return argparse.Namespace(**{name: value for name, value in values.items() if value != "absent"})

    def save(self, path, **changes):
        """Writes the checkpoint; `changes` of args."""
        def checkpoint(names):
            args = self.args(**changes)
            args.model_type = names.model_type.encoder_or_decoder
            return {"args": args, "checkpoint_version": 3.0, "iteration": 14000, "model": self.model}
        save(path, checkpoint)
        return path


def convert(*arguments):
    """The converter as the accrete program runs it: (exit code, stdout, stderr)."""
    done = subprocess.run([sys.executable, str(PACKAGE), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr
