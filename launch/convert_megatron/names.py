"""Which tensor of Megatron-core becomes which of Hugging Face, and back: names, shapes, rows. Pure; the letters are those of network.py.

  linear_qkv is [g * (n/g + 2) * d, h]: for each KV group its n/g query heads, then its key head, then its value head.
  linear_fc1 is [2f, h]: the gate's rows, then those of up.
  Both sides rotate halves, so no row inside a head moves. The tables' rows from `vocab` on are padding.
"""
from failure import Refused
from tensor import WEIGHTS, Assembly

EMBEDDING, OUTPUT, NORM = "embedding.word_embeddings.weight", "output_layer.weight", "decoder.final_layernorm.weight"
TABLES = {EMBEDDING: "model.embed_tokens.weight", OUTPUT: "lm_head.weight"}
HF_NORM = "model.norm.weight"


def layer_names(layer):
    """({part: Megatron's name}, {part: Hugging Face's}) of a layer."""
    ours, theirs = f"decoder.layers.{layer}.", f"model.layers.{layer}."
    megatron = {"qkv_norm": ours + "self_attention.linear_qkv.layer_norm_weight", "qkv": ours + "self_attention.linear_qkv.weight",
                "o": ours + "self_attention.linear_proj.weight", "mlp_norm": ours + "mlp.linear_fc1.layer_norm_weight",
                "fc1": ours + "mlp.linear_fc1.weight", "down": ours + "mlp.linear_fc2.weight"}
    hf = {"qkv_norm": theirs + "input_layernorm.weight", "q": theirs + "self_attn.q_proj.weight", "k": theirs + "self_attn.k_proj.weight",
          "v": theirs + "self_attn.v_proj.weight", "o": theirs + "self_attn.o_proj.weight", "mlp_norm": theirs + "post_attention_layernorm.weight",
          "gate": theirs + "mlp.gate_proj.weight", "up": theirs + "mlp.up_proj.weight", "down": theirs + "mlp.down_proj.weight"}
    return megatron, hf


def megatron_shapes(net):
    """{name: shape} of all tensors of a Megatron file, in its order."""
    shapes = {EMBEDDING: (net.padded_vocab, net.hidden)}
    for layer in range(net.layers):
        names = layer_names(layer)[0]
        shapes[names["o"]] = (net.hidden, net.heads * net.head_size)
        shapes[names["qkv_norm"]] = (net.hidden,)
        shapes[names["qkv"]] = ((net.heads + 2 * net.groups) * net.head_size, net.hidden)
        shapes[names["mlp_norm"]] = (net.hidden,)
        shapes[names["fc1"]] = (2 * net.mlp, net.hidden)
        shapes[names["down"]] = (net.hidden, net.mlp)
    shapes[NORM] = (net.hidden,)
    if not net.tied:
        shapes[OUTPUT] = (net.padded_vocab, net.hidden)
    return shapes


def hf_shapes(net):
    """{name: shape} of all tensors of a Hugging Face directory, in the order that transformers writes."""
    shapes = {TABLES[EMBEDDING]: (net.vocab, net.hidden)}
    for layer in range(net.layers):
        names = layer_names(layer)[1]
        for part in ("qkv_norm", "mlp_norm"):
            shapes[names[part]] = (net.hidden,)
        shapes[names["q"]] = (net.heads * net.head_size, net.hidden)
        shapes[names["k"]] = shapes[names["v"]] = (net.groups * net.head_size, net.hidden)
        shapes[names["o"]] = (net.hidden, net.heads * net.head_size)
        shapes[names["gate"]] = shapes[names["up"]] = (net.mlp, net.hidden)
        shapes[names["down"]] = (net.hidden, net.mlp)
    shapes[HF_NORM] = (net.hidden,)
    if not net.tied:
        shapes[TABLES[OUTPUT]] = (net.vocab, net.hidden)
    return shapes


def check_tensors(found, shapes, path):
    """Refused unless `found` {name: Tensor} has exactly `shapes`, each of a type that a weight may have."""
    for name, shape in shapes.items():
        if name not in found:
            raise Refused(f"{path}: tensor {name} is missing")
        if found[name].shape != shape:
            raise Refused(f"{path}: tensor {name} has shape {list(found[name].shape)}, should have {list(shape)}")
        if found[name].dtype not in WEIGHTS:
            raise Refused(f"{path}: tensor {name} is of type {found[name].dtype}; weights may be {', '.join(WEIGHTS)}")
    for name in found:
        if name not in shapes:
            raise Refused(f"{path}: tensor {name[:200]} has no place in a Llama of {len(shapes)} tensors")


def split_qkv(qkv, net):
    """Megatron's [g * (n/g + 2) * d, h] -> rows of q [n * d, h], k and v [g * d, h]."""
    query_rows, d = net.heads // net.groups * net.head_size, net.head_size
    q, k, v = [], [], []
    for group in range(net.groups):
        begin = group * (query_rows + 2 * d)
        q.append(qkv.rows(begin, begin + query_rows))
        k.append(qkv.rows(begin + query_rows, begin + query_rows + d))
        v.append(qkv.rows(begin + query_rows + d, begin + query_rows + 2 * d))
    return q, k, v


def join_qkv(q, k, v, net):
    """The reverse of split_qkv."""
    query_rows, d = net.heads // net.groups * net.head_size, net.head_size
    parts = []
    for group in range(net.groups):
        parts += [q.rows(group * query_rows, (group + 1) * query_rows), k.rows(group * d, (group + 1) * d), v.rows(group * d, (group + 1) * d)]
    return parts


def to_hf(found, net):
    """{Megatron's name: Tensor} -> {Hugging Face's name: Assembly}, in hf_shapes' order. `found` has passed check_tensors."""
    parts = {TABLES[name]: [found[name].rows(0, net.vocab)] for name in TABLES if name in found}
    parts[HF_NORM] = [found[NORM]]
    for layer in range(net.layers):
        ours, theirs = layer_names(layer)
        parts[theirs["q"]], parts[theirs["k"]], parts[theirs["v"]] = split_qkv(found[ours["qkv"]], net)
        fc1 = found[ours["fc1"]]
        parts[theirs["gate"]], parts[theirs["up"]] = [fc1.rows(0, net.mlp)], [fc1.rows(net.mlp, 2 * net.mlp)]
        for part in ("qkv_norm", "mlp_norm", "o", "down"):
            parts[theirs[part]] = [found[ours[part]]]
    return {name: Assembly(tuple(parts[name]), shape) for name, shape in hf_shapes(net).items()}


def to_megatron(found, padding, net):
    """The reverse of to_hf; `padding` {Megatron's table: Tensor of the padding rows} where there are any."""
    parts = {NORM: [found[HF_NORM]]}
    for ours, theirs in TABLES.items():
        if theirs in found:
            parts[ours] = [found[theirs], *([padding[ours]] if ours in padding else [])]
    for layer in range(net.layers):
        ours, theirs = layer_names(layer)
        parts[ours["qkv"]] = join_qkv(found[theirs["q"]], found[theirs["k"]], found[theirs["v"]], net)
        parts[ours["fc1"]] = [found[theirs["gate"]], found[theirs["up"]]]
        for part in ("qkv_norm", "mlp_norm", "o", "down"):
            parts[ours[part]] = [found[theirs[part]]]
    for name, pieces in parts.items():
        if len({piece.dtype for piece in pieces}) > 1:
            raise Refused(f"the parts of {name} are of different types; Megatron keeps them in one tensor")
    return {name: Assembly(tuple(parts[name]), shape) for name, shape in megatron_shapes(net).items()}
