"""All weights over several GPUs: each holds a part of every layer, of its gradient and Adam's state, and of the teacher (PyTorch's FSDP2).

Layers are gathered one at a time while they are computed. Outside of this file parameters have the names and shapes of weights.py.
"""
import torch
from torch import nn
from torch.distributed import fsdp
from torch.distributed.tensor import distribute_tensor

from retrofit import student
from retrofit.llama import LayerWeights
from retrofit.model_files import LINEARS
from retrofit.weights import DECISION_KINDS, decision_rows, group_names

NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
FIELDS = {**{kind: f"{kind}.W" for kind in LINEARS}, **{field: f"{name}.norm" for field, name in NORMS.items()}}  # of LayerWeights


class StudentLayer(nn.Module):
    def __init__(self, tensors, rows, function):
        """tensors: of LayerWeights by field; rows: where each of DECISION_KINDS decides"""
        super().__init__()
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor.clone()))
        for kind, at in rows.items():
            setattr(self, f"{kind}_rows", nn.Parameter(tensors[kind][at].clone()))
        self.rows, self.function = rows, function

    def forward(self, h, given, mask, shape):
        w = LayerWeights(*(getattr(self, name) for name in LayerWeights._fields))
        deciding = {kind: getattr(w, kind).index_copy(0, at, getattr(self, f"{kind}_rows")) for kind, at in self.rows.items()}
        return self.function(h, w._replace(**deciding), given, mask, shape)


class TeacherLayer(nn.Module):
    def __init__(self, tensors, function):
        super().__init__()
        for name, tensor in tensors.items():
            setattr(self, name, nn.Parameter(tensor, requires_grad=False))
        self.function = function

    def forward(self, h, turn, mask, shape):
        return self.function(h, LayerWeights(*(getattr(self, name) for name in LayerWeights._fields)), turn, mask, shape)


class Teacher(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.stack = nn.ModuleList(layers)

    def forward(self, h, turn, mask, shape):
        for layer in self.stack:
            h = layer(h, turn, mask, shape)
        return h


class Model(nn.Module):
    """What student.Network.forward takes for a step's weights, gathered while it runs."""

    def __init__(self, network, layers, rest, known):
        """rest: float32 tensors outside of layers, known: those of the teacher or None"""
        super().__init__()
        self.network, self.stack = network, nn.ModuleList(layers)
        self.rest = nn.ParameterDict({name: nn.Parameter(tensor.clone()) for name, tensor in rest.items()})
        self.known = nn.ParameterDict({name: nn.Parameter(tensor, requires_grad=False) for name, tensor in (known or {}).items()})

    def layers(self):
        return self.stack

    @property
    def tensors(self):
        return with_output(self.rest)

    def forward(self, batch, moment, hard):
        network = self.network
        network.teacher = ([network.teacher_layers], with_output(self.known)) if network.teacher_layers else None
        found = student.Network.forward(network, batch, self, moment, hard)
        return found.loss, found.means, found.accumulate, found.hard  # a tuple, in which FSDP finds what to wait for


def with_output(tensors):
    """Tied: the embedding is the output matrix too."""
    return {"output": tensors["embedding"], **tensors}


class Network(student.Network):
    def __init__(self, checkpoint, options, device, dtype):
        super().__init__(checkpoint, {**options, "teacher": False}, device, dtype)
        config, inner = checkpoint.config, {**LINEARS, **NORMS}
        get = lambda name, kind=torch.float32: checkpoint.tensors[name].to(device, kind)
        layer = lambda i, kind: {field: get(f"model.layers.{i}.{part}.weight", kind) for field, part in inner.items()}
        outer = {"final_norm": "model.norm.weight", "embedding": "model.embed_tokens.weight", **({} if config.tied else {"output": "lm_head.weight"})}
        rows = {kind: decision_rows(config, kind).to(device) for kind in DECISION_KINDS}
        policy = fsdp.MixedPrecisionPolicy(param_dtype=None if dtype == torch.float32 else dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        shard = lambda module: fsdp.fully_shard(module, mesh=options["ranks"].mesh(), mp_policy=policy, reshard_after_forward=True)
        student_function, teacher_function = self.student_layer, self.teacher_layer
        layers = [shard(StudentLayer(layer(i, torch.float32), rows, student_function)) for i in range(config.layers)]
        self.teacher_layers, known = None, None
        if options["teacher"]:
            self.teacher_layers = shard(Teacher([shard(TeacherLayer(layer(i, dtype), teacher_function)) for i in range(config.layers)]))
            known = {name: get(part, dtype) for name, part in outer.items()}
        self.model = shard(Model(self, layers, {name: get(part) for name, part in outer.items()}, known))
        self.student_layer = self.teacher_layer = lambda h, module, *given: module(h, *given)
        checkpoint.tensors.clear()

    def forward(self, batch, leaves, moment, hard=False):
        return student.Result(*self.model(batch, moment, hard))


class Weights:
    """The interface of weights.Weights without LoRA; tensors are whole only on rank 0 and where they are asked for."""

    replicated, rank = False, 0

    def __init__(self, network, first):
        """network: a Network, first: whether this rank keeps what is gathered"""
        self.config, self.device, self.dtype, self.first = network.config, network.device, network.dtype, first
        model = network.model
        self.stacks = {f"{kind}.rows": [getattr(layer, f"{kind}_rows") for layer in model.stack] for kind in DECISION_KINDS}
        self.stacks.update({name: [getattr(layer, field) for layer in model.stack] for field, name in FIELDS.items()})
        self.single = {"final.norm": model.rest["final_norm"], "embedding": model.rest["embedding"]}
        if not self.config.tied:
            self.single["output"] = model.rest["output"]
        self.names = [*self.stacks, *self.single]
        self.parameters = {f"{name}.{i}": p for name in self.names for i, p in enumerate(self.parts(name))}

    def parts(self, name):
        return self.stacks[name] if name in self.stacks else [self.single[name]]

    def groups(self, lr, row_lr, weight_decay):
        return [{**rest, "params": [p for name in names for p in self.parts(name)]} for names, rest in group_names(self.names, lr, row_lr, weight_decay)]

    def decision_parameters(self):
        return [p for kind in DECISION_KINDS for p in self.stacks[f"{kind}.rows"]]

    def zero_rows(self):
        with torch.no_grad():
            for parameter in self.decision_parameters():
                parameter.zero_()

    def leaves(self):
        return self

    def backward(self):
        """Gradients are where they belong already."""

    def clip(self):
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).full_tensor()
        torch.nn.utils.clip_grads_with_norm_(list(self.parameters.values()), 1.0, norm)
        return norm

    # -- files: every rank takes part in gathering --------------------------------------------------------------------
    def gather(self, name, shards):
        """-> the whole tensor in the CPU's memory on rank 0, None elsewhere"""
        found = []
        for part in shards:
            whole = part.full_tensor()
            if self.first:
                found.append(whole.cpu())
        if not found:
            return None
        return torch.stack(found) if name in self.stacks else found[0]

    def values(self):
        return {name: self.gather(name, [p.detach() for p in self.parts(name)]) for name in self.names}

    def shapes(self):
        return {name: (*([len(parts)] if name in self.stacks else []), *parts[0].shape) for name in self.names for parts in [self.parts(name)]}

    def placed(self, parameter, whole):
        """This rank's part of a tensor that every rank has."""
        return distribute_tensor(whole.to(self.device, parameter.dtype), parameter.device_mesh, parameter.placements, src_data_rank=None)

    def place(self, name, whole):
        return [self.placed(p, whole[i] if name in self.stacks else whole) for i, p in enumerate(self.parts(name))]

    def set_values(self, values):
        with torch.no_grad():
            for name in self.names:
                for parameter, value in zip(self.parts(name), self.place(name, values[name])):
                    parameter.copy_(value)

    def order(self):
        """Names as an optimizer of whole tensors counts them."""
        return [name for names, _ in group_names(self.names, 0, 0, 0) for name in names]

    def optimizer_state(self, optimizer):
        """In the form of an optimizer of whole tensors."""
        state, groups, begin = {}, [], 0
        for index, name in enumerate(self.order()):
            found = [optimizer.state.get(p) for p in self.parts(name)]
            if all(found):
                moments = {key: self.gather(name, [part[key] for part in found]) for key in ("exp_avg", "exp_avg_sq")}
                state[index] = {"step": found[0]["step"].cpu(), **moments}
        for (names, _), group in zip(group_names(self.names, 0, 0, 0), optimizer.param_groups):
            groups.append({**{key: value for key, value in group.items() if key != "params"}, "params": list(range(begin, begin + len(names)))})
            begin += len(names)
        return {"state": state, "param_groups": groups}

    def load_optimizer(self, optimizer, saved):
        for group, old in zip(optimizer.param_groups, saved["param_groups"]):
            group.update({key: value for key, value in old.items() if key not in ("params", "fused", "foreach")})
        fused = optimizer.param_groups[0]["fused"]
        for index, name in enumerate(self.order()):
            if index not in saved["state"]:
                continue
            found = saved["state"][index]
            moments = zip(self.parts(name), self.place(name, found["exp_avg"]), self.place(name, found["exp_avg_sq"]))
            for parameter, mean, square in moments:
                step = found["step"].clone().to(self.device if fused else "cpu")
                optimizer.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}

    def whole(self):
        """-> what export.save_model reads, on rank 0"""
        values = self.values()
        return Whole(values, {kind: decision_rows(self.config, kind) for kind in DECISION_KINDS}, self.dtype) if self.first else None


class Whole:
    rank = 0

    def __init__(self, values, rows, dtype):
        self.values, self.rows, self.dtype = values, rows, dtype

    def step_tensors(self):
        tensors = {field: self.values[name] for field, name in FIELDS.items()}
        for kind, at in self.rows.items():
            tensors[kind] = tensors[kind].index_copy(1, at, self.values[f"{kind}.rows"])
        tensors.update(with_output({"final_norm": self.values["final.norm"], **{n: v for n, v in self.values.items() if n in ("embedding", "output")}}))
        return {name: tensor.to(self.dtype) for name, tensor in tensors.items()}
