#!/usr/bin/env python3
"""llama.cpp's speed on this machine, to stand beside `accrete bench latency`.

    pip install llama-cpp-python        # built from source, so that it uses this processor's instructions
    python tests/bench/llama_cpp_peer.py model-bf16.gguf --threads 2 --batch 1,8 --prompt 512

Measures, through llama.cpp's own C interface (llama_batch, so that a batch is one call):
  decode   the median time of a step that feeds one token to each of B sequences and yields B rows of logits, after
           `--context` tokens of each sequence are in the cache
  prefill  the median time to process a prompt of `--prompt` tokens in one call, logits of the last token alone
and prints one JSON object. Compare equal weight types (a BF16 file beside BF16 weights) and equal thread counts, and run the
two programs in turn, several times: the medians of one run each say little on a machine that does other work.
"""

import argparse
import ctypes
import json
import os
import statistics
import time

import llama_cpp


def parse_arguments():
    parser = argparse.ArgumentParser(description="decode and prefill speed of llama.cpp")
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch", default="1,8", help="comma-separated batch sizes of the decode measurement")
    parser.add_argument("--context", type=int, default=128, help="tokens of each sequence before the first measured step")
    parser.add_argument("--steps", type=int, default=64, help="measured decode steps")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the measured prompt")
    parser.add_argument("--repeat", type=int, default=5, help="prompts measured")
    return parser.parse_args()


def load_model(path):
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {path}")
    return model


class Session:
    """A context with room for `sequences` sequences of `length` tokens, and a batch that is refilled for each call."""

    def __init__(self, model, threads, sequences, length):
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = sequences * length
        parameters.n_batch = parameters.n_ubatch = max(512, length)
        parameters.n_seq_max = sequences
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(model, parameters)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self.batch = llama_cpp.llama_batch_init(max(512, length, sequences), 0, 1)

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)

    def decode(self, entries):
        """entries: (sequence, position, wants logits). Returns the seconds of the call, logits read."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for i, (sequence, position, logits) in enumerate(entries):
            batch.token[i] = (7919 * (sequence + 1) * (position + 1)) % self.vocabulary
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = logits
        begin = time.perf_counter()
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama_decode failed")
        last = llama_cpp.llama_get_logits_ith(self.context, len(entries) - 1)
        assert ctypes.cast(last, ctypes.c_void_p).value
        return time.perf_counter() - begin

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)


def measure_decode(model, arguments, batch):
    session = Session(model, arguments.threads, batch, arguments.context + arguments.steps + 8)
    for sequence in range(batch):
        session.decode([(sequence, i, i == arguments.context - 1) for i in range(arguments.context)])
    times = [
        session.decode([(sequence, arguments.context + step, True) for sequence in range(batch)])
        for step in range(arguments.steps + 4)
    ][4:]
    session.close()
    seconds = statistics.median(times)
    return {"batch": batch, "ms_per_step": 1e3 * seconds, "tokens_per_second": batch / seconds}


def measure_prefill(model, arguments):
    session = Session(model, arguments.threads, 1, arguments.prompt)
    times = []
    for _ in range(arguments.repeat + 1):
        session.clear()
        times.append(session.decode([(0, i, i == arguments.prompt - 1) for i in range(arguments.prompt)]))
    session.close()
    seconds = statistics.median(times[1:])
    return {"prompt": arguments.prompt, "ms": 1e3 * seconds, "tokens_per_second": arguments.prompt / seconds}


def main():
    arguments = parse_arguments()
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = load_model(arguments.model)
    result = {
        "program": f"llama.cpp (llama-cpp-python {llama_cpp.__version__})",
        "system": llama_cpp.llama_print_system_info().decode(),
        "model": os.path.basename(arguments.model),
        "threads": arguments.threads,
        "decode": [measure_decode(model, arguments, int(batch)) for batch in arguments.batch.split(",")],
        "prefill": measure_prefill(model, arguments),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
