#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: small vocabularies trained with the tokenizers and sentencepiece packages, and what those packages make of a corpus.

  make_golden.py OUTPUT_FOLDER      needs: tokenizers, sentencepiece
"""
import io
import json
import pathlib
import sys

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers, Regex

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from compare_corpus import LLAMA_3  # noqa: E402
from corpus import SENTENCES, corpus  # noqa: E402

CASES = 500


def byte_level(pre, vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(corpus(3000, seed=2), trainer)
    return tokenizer


def write(path, cases):
    path.write_text("\n".join(json.dumps(case) for case in cases) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1])
    texts = [t for t in corpus(CASES, seed=3) if len(t) < 200]
    pres = {"smollm2": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
            "llama3": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA_3), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])}
    for name, pre in pres.items():
        tokenizer = byte_level(pre, 700)
        (folder / f"{name}.tokenizer.json").write_text(tokenizer.to_str())
        write(folder / f"{name}.cases.jsonl", [[t, (ids := tokenizer.encode(t).ids), tokenizer.decode(ids, skip_special_tokens=False)] for t in texts])
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES * 3), model_writer=model, vocab_size=480, model_type="bpe", byte_fallback=True,
                                             normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.99,
                                             hard_vocab_limit=False, minloglevel=2)
    (folder / "llama2.tokenizer.model").write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    plain = [t for t in texts if t and not any(s in t for s in ("<s>", "</s>", "<unk>")) and "\u2581" not in t and "\x00" not in t]
    write(folder / "llama2.cases.jsonl", [[t, (ids := processor.encode(t)), processor.decode(ids)] for t in plain])


if __name__ == "__main__":
    main()
