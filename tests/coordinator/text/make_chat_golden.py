#!/usr/bin/env python3
"""Makes tests/golden/chat/conversations.json: random conversations, and what Jinja makes of them with the templates that models bring.

  make_chat_golden.py OUTPUT_FILE      needs: jinja2

Templates are run as transformers runs them: a sandbox, trim_blocks and lstrip_blocks on, raise_exception at hand. A text is null where the template
raises, or where it would leave a message out without a word (Llama 2's with a system message in an assistant's place): both are refused by the server.
"""
import json
import pathlib
import random
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment

CONVERSATIONS = 340
TEMPLATES_EACH = 2

# The Jinja of the models' own tokenizer_config.json; Llama 3.1's without its branches for tools, which need fields that no message here has.
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
LLAMA_3_1 = (
    '{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- set date_string = "26 Jul 2024" %}\n{%- endif %}\n'
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n"
    "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n"
    '{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}\n{{- "Cutting Knowledge Date: December 2023\\n" }}\n'
    '{{- "Today Date: " + date_string + "\\n\\n" }}\n{{- system_message }}\n{{- "<|eot_id|>" }}\n{%- for message in messages %}\n'
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n")
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
TEMPLATES = {
    "llama-2": (LLAMA_2, "<s>", "</s>"),
    "llama-3": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.1": (LLAMA_3_1, "<|begin_of_text|>", "<|eot_id|>"),
    "chatml": (CHATML, "<|im_start|>", "<|im_end|>"),
    "smollm2": (SMOLLM2, "<|im_start|>", "<|im_end|>"),
    "zephyr": (ZEPHYR, "<s>", "</s>"),
}

WORDS = ["river", "Why", "3.14", "naïve", "你好", "привет", "שלום", "e\u0301", "👩‍🔬", "{x}", "{{ bos_token }}", "{% endif %}", "{# no #}", "%s", "\\n", "\"quoted\"",
         "it's", "<b>&amp;", "[INST]", "[/INST]", "<<SYS>>", "<|im_end|>", "<|eot_id|>", "</s>", "null", "\u200b", "\ufeff", "\U0010fffd"]
SPACES = [" ", "  ", "\n", "\n\n", "\t", "\r\n", "\v", "\f", "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u1680", "\u202f", "\u205f", "\x1c", "\x1f", "\x85"]
NO_SPACES = ["\u200b", "\ufeff", "\u180e", "\x00", "\x1b", "\u2060"]  # look like white space and are none for Python


def content(rng):
    kind = rng.random()
    if kind < 0.06:
        return ""
    if kind < 0.10:
        return "".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4)))
    words = [rng.choice(WORDS) for _ in range(80 if kind > 0.99 else rng.randint(1, 4))]
    text = "".join(word + rng.choice([" ", " ", rng.choice(SPACES)]) for word in words[:-1]) + words[-1]
    for odd in (SPACES, SPACES, NO_SPACES):
        if rng.random() < 0.3:
            text = rng.choice(odd) + text
        if rng.random() < 0.3:
            text += rng.choice(odd)
    return text


def roles(rng):
    turns = ["user", "assistant"] * rng.randint(1, 3)
    if rng.random() < 0.7:
        turns.pop()  # the user has the last word
    if rng.random() < 0.5:
        turns.insert(0, "system")
    if rng.random() < 0.15:  # out of order
        turns.insert(rng.randint(0, len(turns)), rng.choice(["user", "assistant", "system"]))
    if rng.random() < 0.03:
        turns = [rng.choice(["system", "assistant"])]
    return turns


class Refused(Exception):
    pass


def refuse(message):
    raise Refused(message)


def render(source, messages, **names):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(source).render(messages=messages, **names)
    except Refused:
        return None


def main():
    rng = random.Random(20)
    names = list(TEMPLATES)
    lines = []
    for _ in range(CONVERSATIONS):
        messages = [{"role": role, "content": content(rng)} for role in roles(rng)]
        generate = rng.random() < 0.7
        texts = {}
        for name in rng.sample(names, TEMPLATES_EACH):
            source, bos, eos = TEMPLATES[name]
            texts[name] = render(source, messages, add_generation_prompt=generate, bos_token=bos, eos_token=eos)
            if name == "llama-2" and any(message["role"] == "system" for message in messages[1:]):
                texts[name] = None
        case = {"messages": [[message["role"], message["content"]] for message in messages], "generate": generate, "texts": texts}
        lines.append(json.dumps(case, ensure_ascii=False))
    templates = {name: {"source": source, "bos": bos, "eos": eos} for name, (source, bos, eos) in TEMPLATES.items()}
    text = '{"templates": ' + json.dumps(templates) + ',\n"cases": [\n' + ",\n".join(lines) + "\n]}\n"
    pathlib.Path(sys.argv[1]).write_text(text, encoding="utf-8", newline="")


if __name__ == "__main__":
    main()
