"""DMC in plain Python, float64, for one KV head with its group of query heads. Written from docs/dmc.md, without the package's code.

q [T][G][D], k and v [T][D] before RoPE; alpha [T] in 0..1, which token t merges into the slot before it (alpha[0] = 0).
"""
import array
import json
import math
import struct

OFFSET, EPSILON = 5.0, 2.0 ** -7


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def read_safetensors(path):
    """path -> ({name: (shape, flat values)}, metadata)"""
    blob = path.read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + size])
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = entry["shape"], array.array({"F32": "f", "I32": "i"}[entry["dtype"]], blob[8 + size + begin:8 + size + end])
    return tensors, meta


def rows(tensor, batch, head):
    """[T, B, H, D] -> [T][D] of one batch row and head"""
    (tokens, batches, heads, width), values = tensor
    at = lambda t: ((t * batches + batch) * heads + head) * width
    return [list(values[at(t):at(t) + width]) for t in range(tokens)]


def importance(q):
    """[T]"""
    return [sigmoid(sum(head[-1] for head in heads) / len(heads) + OFFSET) + EPSILON for heads in q]


def hard_decisions(k):
    return [0.0] + [float(row[-1] - OFFSET > 0) for row in k[1:]]


def relaxed_decisions(k, noise, temperature):
    return [0.0] + [sigmoid((row[-1] - OFFSET + g) / temperature) for row, g in zip(k[1:], noise[1:])]


def pool(k, v, w, alpha, window):
    """What the open slot holds after each token: each earlier token counts by the product of the decisions since -> kbar, vbar [T][D]"""
    kbar, vbar = [], []
    for t in range(len(k)):
        reach, shares = 1.0, []
        for back in range(min(t + 1, window or t + 1)):
            shares.append((t - back, reach * w[t - back]))
            reach *= alpha[t - back]
        total = sum(share for _, share in shares)
        mean = lambda x: [sum(share * x[j][d] for j, share in shares) / total for d in range(len(x[0]))]
        kbar.append([*mean(k)[:-1], 0.0])
        vbar.append(mean(v))
    return kbar, vbar


def rotated(x, position, theta):
    """Half-split RoPE; the last component is zero before and after."""
    half, y = len(x) // 2, [*x[:-1], 0.0]
    out = [0.0] * len(x)
    for i in range(half):
        c, s = math.cos(position * theta ** (-i / half)), math.sin(position * theta ** (-i / half))
        out[i], out[i + half] = y[i] * c - y[i + half] * s, y[i] * s + y[i + half] * c
    return [*out[:-1], 0.0]


def mixed(scores, values):
    """softmax(scores) . values; -inf scores count nothing"""
    top = max(scores)
    weights = [math.exp(s - top) for s in scores]
    total = sum(weights)
    return [sum(w * v[d] for w, v in zip(weights, values) if w) / total for d in range(len(values[0]))]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(len(a))


def log_open(alpha):
    """log(1 - alpha), -inf for a decision without doubt"""
    return math.log1p(-alpha) if alpha < 1 else -math.inf


def attend(q, kbar, vbar, alpha, theta):
    """The full mask of training: column j < t gets log(1 - alpha[j + 1]), the diagonal nothing -> [T][G][D]"""
    keys = [rotated(row, t, theta) for t, row in enumerate(kbar)]
    out = []
    for t, heads in enumerate(q):
        closed = [log_open(alpha[j + 1]) for j in range(t)]
        queries = [rotated(head, t, theta) for head in heads]
        scores = [[dot(query, keys[j]) + closed[j] for j in range(t)] + [dot(query, keys[t])] for query in queries]
        out.append([mixed(row, vbar[:t + 1]) for row in scores])
    return out


def decode(q, kbar, vbar, alpha, theta):
    """Token by token over slots, as a cache does -> out [T][G][D], slot [T]"""
    keys, values, out, slot = [], [], [], []
    for t, heads in enumerate(q):
        if alpha[t] == 0:
            keys.append(None), values.append(None)
        keys[-1], values[-1] = rotated(kbar[t], t, theta), vbar[t]
        out.append([mixed([dot(rotated(head, t, theta), key) for key in keys], values) for head in heads])
        slot.append(len(keys) - 1)
    return out, slot


def shortfall(alphas, target_cr):
    """alphas: of all layers and heads together"""
    return max(0.0, 1 - 1 / target_cr - sum(alphas) / len(alphas))
