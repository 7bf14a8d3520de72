"""What is trained: LoRA pairs and decision rows, or all weights, and how they make the weights a step computes with.

Linear weights of a kind are stacked over layers, [L, out, in]. With LoRA W = W0 + B A, rounded as the engine rounds when it
merges, so that training sees the deployed weights; the decision and importance rows of q and k are vectors of their own.
"""
import torch

from retrofit.llama import LayerWeights
from retrofit.model_files import LINEARS, linear_shapes

DECISION_KINDS = ("q", "k")


def decision_rows(config, kind):
    """The last row of each head."""
    heads = config.query_heads if kind == "q" else config.kv_heads
    return torch.arange(1, heads + 1) * config.head_size - 1


class Weights:
    """Owned by the trainer. `parameters` are the masters that the optimizer knows, `leaves` what a step's layers compute with."""

    replicated = True  # on every rank

    def __init__(self, checkpoint, device, dtype, rank):
        self.config, self.device, self.dtype, self.rank = checkpoint.config, device, dtype, rank
        layers, tensors = range(self.config.layers), checkpoint.tensors
        stack = lambda inner: torch.stack([tensors[f"model.layers.{i}.{inner}.weight"] for i in layers]).to(device)
        self.base = {kind: stack(inner) for kind, inner in LINEARS.items()}            # float32
        self.norms = {name: stack(name) for name in ("input_layernorm", "post_attention_layernorm")}
        own = lambda name: tensors[name].to(device, copy=not rank)  # on a CPU the teacher may hold the checkpoint's; it must not be trained with
        self.final_norm, self.embedding = own("model.norm.weight"), own("model.embed_tokens.weight")
        self.output = self.embedding if self.config.tied else own("lm_head.weight")
        self.rows = {kind: decision_rows(self.config, kind).to(device) for kind in DECISION_KINDS}
        self.parameters = {}
        self.add_parameters()

    def add_parameters(self):
        c = self.config
        for kind in DECISION_KINDS:
            self.parameters[f"{kind}.rows"] = self.base[kind][:, self.rows[kind]].clone()
        if self.rank:
            for kind, (rows, columns) in linear_shapes(c).items():
                a = torch.randn(c.layers, self.rank, columns, device=self.device) / columns ** 0.5
                self.parameters[f"{kind}.A"] = a
                self.parameters[f"{kind}.B"] = torch.zeros(c.layers, rows, self.rank, device=self.device)
        else:
            self.parameters.update({f"{kind}.W": self.base.pop(kind) for kind in LINEARS})
            self.parameters.update({f"{name}.norm": self.norms.pop(name) for name in list(self.norms)})
            self.parameters.update({"final.norm": self.final_norm, "embedding": self.embedding})
            if not c.tied:
                self.parameters["output"] = self.output
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    def groups(self, lr, row_lr, weight_decay):
        """Optimizer groups, each with its highest rate; rows and norms without decay.

        Decision rows must lift a logit from 0 to the offset while CR grows. Adam moves it by about rate * sum |mean input| a step,
        and that sum is a few dozen in a small model: they need a higher rate than the rest. So do importance rows.
        """
        groups = group_names(self.parameters, lr, row_lr, weight_decay)
        return [{"params": [self.parameters[n] for n in names], **rest} for names, rest in groups]

    def decision_parameters(self):
        return [self.parameters[f"{kind}.rows"] for kind in DECISION_KINDS]

    def zero_rows(self):
        """The end of stage 1: decision and importance logits begin at 0."""
        with torch.no_grad():
            for parameter in self.decision_parameters():
                parameter.zero_()

    def leaves(self):
        return Leaves(self)

    def clip(self):
        """Gradients to a norm of 1 at most -> the norm they had"""
        return torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)

    def values(self):
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    def shapes(self):
        return {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}

    def set_values(self, values):
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])

    def optimizer_state(self, optimizer):
        return optimizer.state_dict()

    def load_optimizer(self, optimizer, saved):
        optimizer.load_state_dict(saved)

    def whole(self):
        return self

    def merged(self, kind):
        """W [L, out, in] in the products' type, differentiable."""
        p = self.parameters
        base = self.base[kind] if self.rank else p[f"{kind}.W"]
        if self.rank:
            w = base + rounded(p[f"{kind}.B"], self.dtype) @ rounded(p[f"{kind}.A"], self.dtype)
        else:
            w = base
        if kind in DECISION_KINDS:
            rows = p[f"{kind}.rows"]
            if self.rank:  # an adapter stores what it adds to the base's rows
                rows = self.base[kind][:, self.rows[kind]] + rounded(rows - self.base[kind][:, self.rows[kind]], self.dtype)
            w = w.index_copy(1, self.rows[kind], rows)
        return w.to(self.dtype)

    def step_tensors(self):
        """{name: tensor} of everything a forward pass reads, in the products' type, with a graph back to the parameters."""
        p, out = self.parameters, {kind: self.merged(kind) for kind in LINEARS}
        get = lambda name, kept: (p[name] if name in p else kept).to(self.dtype)
        out["attn_norm"] = get("input_layernorm.norm", self.norms.get("input_layernorm"))
        out["ffn_norm"] = get("post_attention_layernorm.norm", self.norms.get("post_attention_layernorm"))
        out["final_norm"] = get("final.norm", self.final_norm)
        out["embedding"] = get("embedding", self.embedding)
        out["output"] = out["embedding"] if self.config.tied else get("output", self.output)
        return out


def group_names(names, lr, row_lr, weight_decay):
    """-> [(names, the group's settings)], see Weights.groups"""
    decisions, bare = [f"{kind}.rows" for kind in DECISION_KINDS], [n for n in names if n.endswith(".norm")]
    rest = [n for n in names if n not in decisions + bare]
    return [(rest, {"weight_decay": weight_decay, "peak": lr}), (bare, {"weight_decay": 0.0, "peak": lr}),
            (decisions, {"weight_decay": 0.0, "peak": row_lr})]


def rounded(x, dtype):
    return x.to(dtype).float()


class Leaves:
    """Weights of one step, cut off from the masters so that several micro-batches add to one gradient; `backward` hands it on."""

    def __init__(self, weights):
        self.sources = weights.step_tensors()
        unique = {id(t): t.detach().requires_grad_(t.requires_grad) for t in self.sources.values()}
        self.tensors = {name: unique[id(t)] for name, t in self.sources.items()}
        self.unique = [(t, unique[id(t)]) for t in dict.fromkeys(self.sources.values())]

    def layers(self):
        stacks = [self.tensors[name].unbind(0) for name in (*LINEARS, "attn_norm", "ffn_norm")]
        return [LayerWeights(*parts) for parts in zip(*stacks)]

    def backward(self):
        pairs = [(source, leaf.grad) for source, leaf in self.unique if leaf.grad is not None]
        torch.autograd.backward([s for s, _ in pairs], [g for _, g in pairs])


def plain_layers(checkpoint, device, dtype):
    """The unmodified model's layers and {final_norm, embedding, output}: the teacher."""
    get = lambda name: checkpoint.tensors[name].to(device, dtype)
    names = [*LINEARS.values(), "input_layernorm", "post_attention_layernorm"]
    layers = [LayerWeights(*(get(f"model.layers.{i}.{n}.weight") for n in names)) for i in range(checkpoint.config.layers)]
    rest = {"final_norm": get("model.norm.weight"), "embedding": get("model.embed_tokens.weight")}
    rest["output"] = rest["embedding"] if checkpoint.config.tied else get("lm_head.weight")
    return layers, rest
