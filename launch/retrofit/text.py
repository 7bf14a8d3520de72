"""The model's tokenizer (from tokenizer.json, or a GGUF's metadata) and its chat format."""
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from retrofit.model_files import ModelFileError

CONTROL = 3  # GGUF token type
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
          "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def tokenizer_of(path):
    path = pathlib.Path(path)
    if path.is_dir():
        if not (path / "tokenizer.json").is_file():
            raise ModelFileError(f"{path}: no tokenizer.json")
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    return gguf_tokenizer(path)


def gguf_fields(path):
    import gguf
    return gguf.GGUFReader(path).fields


def gguf_tokenizer(path):
    fields = gguf_fields(path)
    get = lambda name: fields[f"tokenizer.ggml.{name}"].contents()
    if get("model") != "gpt2" or get("pre") != "smollm":
        raise ModelFileError(f"{path}: tokenizer {get('model')}/{get('pre')} is not read here; use the Hugging Face directory")
    tokens = get("tokens")
    merges = [tuple(merge.split(" ")) for merge in get("merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, get("token_type")) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def tokenizer_config(gguf_path):
    fields = gguf_fields(gguf_path)
    tokens = fields["tokenizer.ggml.tokens"].contents()
    name = lambda which: tokens[fields[f"tokenizer.ggml.{which}_token_id"].contents()]
    template = fields["tokenizer.chat_template"].contents() if "tokenizer.chat_template" in fields else CHATML
    return {"bos_token": name("bos"), "eos_token": name("eos"), "unk_token": name("unknown"), "add_bos_token": False,
            "tokenizer_class": "GPT2Tokenizer", "chat_template": template}


SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def chat(turns, system=SYSTEM, answer=True):
    """turns: what user and assistant said in turn -> ChatML text, with the head of the next answer."""
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for i, content in enumerate(turns):
        text += f"<|im_start|>{'assistant' if i % 2 else 'user'}\n{content}<|im_end|>\n"
    return text + ("<|im_start|>assistant\n" if answer else "")
