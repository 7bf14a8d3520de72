"""The sizes of a Llama network, from a Megatron checkpoint's args or from a Hugging Face config.json, and what neither can express."""
import dataclasses

from failure import Refused

LLAMA_2_VOCABULARY = 32000

# Megatron's argument -> the values under which the network is a Llama. A missing argument counts as None.
NEEDED = {
    "swiglu": (True,), "normalization": ("RMSNorm",), "position_embedding_type": ("rope", None), "rotary_interleaved": (False, None),
    "rotary_percent": (1.0, 1, None), "rotary_seq_len_interpolation_factor": (None,), "use_rope_scaling": (False, None),
    "add_bias_linear": (False, None), "add_qkv_bias": (False, None), "apply_layernorm_1p": (False, None), "qk_layernorm": (False, None),
    "num_experts": (None,), "multi_latent_attention": (False, None), "window_size": (None,), "expert_model_parallel_size": (1, None),
    "virtual_pipeline_model_parallel_size": (None,), "dmc_is_stage_one": (False, None),
}
REASONS = {
    "rotary_interleaved": "rotates neighbouring components; the engine rotates halves, and these weights would have to be permuted",
    "dmc_is_stage_one": "is of the first stage of a retrofit, which makes no decisions yet; convert the checkpoint of a later stage",
    "num_experts": "is a mixture of experts",
}


@dataclasses.dataclass(frozen=True)
class Network:
    layers: int
    hidden: int         # h
    mlp: int            # f
    heads: int          # n, query heads
    groups: int         # g, KV heads
    head_size: int      # d
    vocab: int          # rows that tokens use
    padded_vocab: int   # Vpad, rows of Megatron's tables
    tied: bool          # output_layer shares the embedding's rows
    max_position: int = 4096
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0


class Arguments:
    """Megatron's args with checks: every error names the argument."""

    def __init__(self, args, path):
        self.args, self.path = args, path

    def get(self, name, default=None):
        value = self.args.get(name)
        return default if value is None else value

    def refuse(self, name, text):
        raise Refused(f"{self.path}: args.{name} {text}")

    def size(self, name, default=None, most=1 << 24):
        value = self.get(name, default)
        if type(value) is not int or not 1 <= value <= most:
            self.refuse(name, f"should be a whole number from 1 to {most}, is {shown(value)}")
        return value

    def number(self, name, default):
        value = self.get(name, default)
        if type(value) not in (int, float) or not 0 < value < 1e12:
            self.refuse(name, f"should be a positive number, is {shown(value)}")
        return float(value)


def shown(value):
    """A value for a message: short, whatever it is."""
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1 << 63):
        return str(value)
    return repr(value[:40]) if isinstance(value, str) else f"a {type(value).__name__}"


def refuse_other_networks(arguments):
    for name in ("tensor_model_parallel_size", "pipeline_model_parallel_size"):
        ranks = arguments.size(name, 1)
        if ranks > 1:
            arguments.refuse(name, f"is {ranks}: this file is one of {ranks} pieces; merge them with Megatron's own tools first")
    for name, accepted in NEEDED.items():
        value = arguments.args.get(name)
        if not any(type(value) is type(one) and value == one for one in accepted):
            wanted = " or ".join(shown(one) for one in accepted)
            arguments.refuse(name, f"is {shown(value)}: {REASONS.get(name, 'this is no Llama network that the engine computes')} (needed: {wanted})")


def vocabulary(arguments, given, rows):
    """How many of a table's `rows` are tokens: as given on the command line, as args say, or Llama 2's."""
    vocab = given
    if not vocab and arguments.get("vocab_size") is not None:
        vocab = arguments.size("vocab_size")
    if not vocab and arguments.get("tokenizer_type") in ("Llama2Tokenizer", "LlamaTokenizer"):
        vocab = LLAMA_2_VOCABULARY
    if not vocab:
        arguments.refuse("vocab_size", f"does not say how many of the {rows} rows of the embedding are tokens; give --vocab-size")
    if vocab > rows:
        raise Refused(f"{arguments.path}: the embedding has {rows} rows, fewer than the vocabulary's {vocab}; check --vocab-size")
    return vocab


def from_args(arguments, embedding_rows, vocab_given=0):
    """The network that args describe; Refused naming the argument when it is none that can be converted."""
    refuse_other_networks(arguments)
    heads, hidden = arguments.size("num_attention_heads", most=4096), arguments.size("hidden_size")
    groups = arguments.size("num_query_groups", most=4096) if arguments.get("group_query_attention", False) is True else heads
    if heads % groups != 0:
        arguments.refuse("num_query_groups", f"is {groups}, which does not divide the {heads} heads")
    if arguments.get("kv_channels") is None and hidden % heads != 0:
        arguments.refuse("kv_channels", f"is missing, and hidden_size {hidden} is no multiple of the {heads} heads")
    return Network(
        layers=arguments.size("num_layers", most=4096), hidden=hidden, mlp=arguments.size("ffn_hidden_size"), heads=heads, groups=groups,
        head_size=arguments.size("kv_channels", hidden // heads, most=1024), vocab=vocabulary(arguments, vocab_given, embedding_rows),
        padded_vocab=embedding_rows, tied=arguments.get("untie_embeddings_and_output_weights", False) is not True,
        max_position=arguments.size("max_position_embeddings", arguments.get("seq_length", 4096)),
        norm_eps=arguments.number("norm_epsilon", arguments.get("layernorm_epsilon", 1e-5)),
        rope_theta=arguments.number("rotary_base", 10000.0))


def dmc_block(arguments):
    """config.json's "dmc" from args.dmc_*, None when there are none; Refused when they are not usable."""
    found = {name: value for name, value in arguments.args.items() if name.startswith("dmc_")}
    if not found:
        return None
    if "dmc_cr" not in found:
        arguments.refuse("dmc_cr", "is missing beside " + ", ".join(sorted(found)[:10]))
    target = arguments.number("dmc_cr", None)
    window = arguments.get("dmc_window_size", 12)
    if type(window) is not int or not 0 <= window <= 4096:
        arguments.refuse("dmc_window_size", f"should be a whole number from 0 to 4096, is {shown(window)}")
    if target < 1:
        arguments.refuse("dmc_cr", f"should be at least 1, is {target:g}")
    return {"target_cr": target, "window": window, "offset": arguments.number("dmc_init_val", 5.0)}


def config_json(network, dtype, dmc, tokens):
    """config.json; `dtype` is transformers' name of the weights' type, `tokens` {bos_token_id, eos_token_id} as far as known."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
        "hidden_size": network.hidden, "intermediate_size": network.mlp, "num_hidden_layers": network.layers,
        "num_attention_heads": network.heads, "num_key_value_heads": network.groups, "head_dim": network.head_size,
        "vocab_size": network.vocab, "max_position_embeddings": network.max_position, "rms_norm_eps": network.norm_eps,
        "rope_theta": network.rope_theta, "tie_word_embeddings": network.tied, "torch_dtype": dtype, **tokens}
    if dmc is not None:
        config["dmc"] = dmc
    return config
