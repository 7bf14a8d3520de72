"""accrete retrofit: trains a Llama to compress its cache. docs/retrofit.md is its manual."""
import argparse
import os
import pathlib
import signal
import sys
import time

if not __package__:  # run as a folder: its modules are those of the package beside it
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

STARTED = time.monotonic()
EXIT_FAILED, EXIT_USAGE = 1, 2
LEAST = {"target_cr": 1, "window": 0, "lm_share": 0, "lora_rank": 0, "lr": 0, "row_lr": 0, "cr_weight": 0, "minutes": 0, "steps": 0, "zero_share": 0,
         "grow_share": 1e-6, "branch_cr": 0, "rows": 1, "length": 16, "micro_batches": 1, "eval_batches": 1, "pieces": 1, "save_seconds": 0,
         "eval_seconds": 0, "log_steps": 1}


def processes():
    """How many torchrun started for this run."""
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdecimal() else 1


class Parser(argparse.ArgumentParser):
    def error(self, message):
        if not processes() > 1 or os.environ.get("RANK") == "0":  # one of them speaks
            sys.stderr.write(f"accrete retrofit: error: {message}\n")
        sys.exit(EXIT_USAGE)


def flags():
    p = Parser(prog="accrete retrofit", description="trains a Llama to compress its cache (DMC)", allow_abbrev=False)
    add = p.add_argument
    add("model", help="Hugging Face directory or GGUF file")
    add("--data", action="append", required=True, metavar="FILES[=SHARE]", help="token files of `retrofit.tokens`; may be repeated")
    add("--eval-data", action="append", default=[], metavar="[NAME=]FILES", help="token files to measure on (NAME: held-out); may be repeated")
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="checkpoints, log, plots, and the result in DIR/model")
    add("--target-cr", type=float, default=4.0)
    add("--window", type=int, default=12)
    add("--offset", type=float, default=5.0)
    add("--loss", choices=["lm", "distill"], default="distill")
    add("--lm-share", type=float, default=0.0, help="share of cross entropy in a distillation loss")
    add("--lora-rank", type=int, default=0, help="train and save a LoRA adapter; 0: all weights")
    add("--lr", type=float, default=0.0, help="default 1e-3 with LoRA, 1e-4 without")
    add("--row-lr", type=float, default=3e-3, help="of the decision and importance rows")
    add("--cr-weight", type=float, default=1.0, help="of the compression term in the loss")
    add("--minutes", type=float, default=0.0, help="length of the run by the clock")
    add("--steps", type=int, default=0, help="length of the run in steps")
    add("--zero-share", type=float, default=0.04, help="of the run for stage 1")
    add("--grow-share", type=float, default=0.35, help="of the run for stage 2")
    add("--branch-cr", type=float, default=0.0, help="writes a snapshot when the growing CR passes this")
    add("--from", dest="snapshot", metavar="FILE", help="begin at a snapshot or an adapter of a retrofit, fine-tuning alone")
    add("--rows", type=int, default=16, help="sequences of a micro-batch")
    add("--length", type=int, default=2048, help="tokens of a sequence")
    add("--micro-batches", type=int, default=2, help="of a step")
    add("--eval-batches", type=int, default=2)
    add("--save-seconds", type=float, default=60.0)
    add("--eval-seconds", type=float, default=120.0)
    add("--log-steps", type=int, default=10)
    add("--pieces", type=int, default=4, help="of a micro-batch, for its logits")
    add("--dtype", choices=["auto", "bfloat16", "float32"], default="auto", help="auto: bfloat16 on GPUs")
    add("--device", choices=["auto", "cuda", "cpu"], default="auto")
    add("--attention", choices=["auto", "flex", "flash", "full"], default="auto", help="auto: flex on GPUs, full masks on CPUs")
    add("--enforce-eager", action="store_true", help="no torch.compile (always so on CPUs)")
    add("--seed", type=int, default=0)
    return p


def check(p, a):
    if (a.steps > 0) == (a.minutes > 0):
        p.error("--steps or --minutes: give one of them")
    for name, least in LEAST.items():
        value = getattr(a, name)
        if not least <= value < float("inf"):
            p.error(f"--{name.replace('_', '-')} {value:g}: must be at least {least:g}")
    if a.lm_share > 1:
        p.error("--lm-share: must be in 0..1")
    if a.zero_share + a.grow_share >= 1:
        p.error("--zero-share and --grow-share: together below 1; fine-tuning has the rest")
    if a.rows % processes():
        p.error(f"--rows {a.rows}: must be a multiple of the {processes()} processes, which share a micro-batch")
    if a.branch_cr and not 1 < a.branch_cr <= a.target_cr:
        p.error("--branch-cr: must be above 1 and at most --target-cr")


def plan_of(a):
    from retrofit.schedule import Plan
    lr = a.lr or (1e-3 if a.lora_rank else 1e-4)
    if a.snapshot:
        return Plan(target_cr=a.target_cr, zero_share=0.0, grow_share=0.0, lr=lr)
    return Plan(target_cr=a.target_cr, zero_share=a.zero_share, grow_share=a.grow_share, lr=lr)


def build(a, group):
    """group: Alone or Ranks -> Trainer"""
    import torch

    from retrofit import adapter, checkpoint, data, model_files, student, trainer, weights
    from retrofit.schedule import Clock
    device = student.device_of(a.device)
    torch.manual_seed(a.seed)
    wide = a.dtype == "float32" or (a.dtype == "auto" and device.type == "cpu")
    dtype = torch.float32 if wide else torch.bfloat16
    source = model_files.open_checkpoint(a.model)
    attention = a.attention if a.attention != "auto" else "full" if device.type == "cpu" else "flex"
    compiled = device.type == "cuda" and not a.enforce_eager
    shards = processes() > 1 and not a.lora_rank
    if shards:
        from retrofit import sharded
    network = (sharded if shards else student).Network(source, {
        "window": a.window, "offset": a.offset, "mix": a.lm_share if a.loss == "distill" else 1.0, "pieces": a.pieces,
        "compiled": compiled, "attention": attention, "teacher": a.loss == "distill", "ranks": group}, device, dtype)
    read = lambda flag, text: data.parse_source(flag, text, source.config.vocab)
    train = data.Mixture([read("--data", text) for text in a.data], a.seed)
    held_out = {name: data.Mixture([read("--eval-data", files)], a.seed) for name, files in map(data.named, a.eval_data)}
    if len(held_out) < len(a.eval_data):
        raise data.DataError("--eval-data: two of the same name; NAME=FILES tells them apart")
    parts = {"checkpoint": source, "network": network, "train": train, "held_out": held_out, "ranks": group,
             "weights": sharded.Weights(network, group.first) if shards else weights.Weights(source, device, dtype, a.lora_rank)}
    names = ("output", "rows", "length", "micro_batches", "save_seconds", "eval_seconds", "log_steps", "eval_batches", "branch_cr", "row_lr", "cr_weight", "seed")
    options = trainer.Options(**{name: getattr(a, name) for name in names}, base_name=pathlib.Path(a.model).resolve().name)
    made = trainer.Trainer(parts, plan_of(a), Clock(a.steps, a.minutes), options)
    if a.snapshot:
        if pathlib.Path(a.snapshot).is_dir():
            values = adapter.parameters(source, a.snapshot)
        else:
            values = checkpoint.load(a.snapshot, None if shards else device)["parameters"]
        made.set_parameters(values, a.snapshot)
    return made


def main():
    p = flags()
    a = p.parse_args()
    check(p, a)
    try:
        import torch  # noqa: F401
        import gguf  # noqa: F401
        import safetensors  # noqa: F401
        import tokenizers  # noqa: F401
        from retrofit import checkpoint, data, model_files, ranks, trainer
    except ImportError as error:
        return failed(f"{error}; it needs PyTorch 2.6 or newer, safetensors, tokenizers and gguf (ACCRETE_PYTHON names a Python that has them)")
    try:
        train(a)
    except (data.DataError, model_files.ModelFileError, checkpoint.CheckpointError, ranks.RanksError, trainer.TrainingError, OSError) as error:
        return failed(error)
    except ranks.Elsewhere:
        return EXIT_FAILED
    return 0


def failed(error):
    print(f"accrete retrofit: error: {' '.join(str(error).split())}", file=sys.stderr)
    return EXIT_FAILED


def train(a):
    from retrofit import ranks, student
    group = ranks.Alone() if processes() <= 1 else ranks.Ranks(student.device_of(a.device).type == "cuda")
    try:
        train_with(a, group)
    finally:
        group.end()


def train_with(a, group):
    run = group.attempt(lambda: build(a, group))
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: setattr(run, "stopping", True))
    if not run.run(STARTED):
        return
    figures = run.finish()
    if not group.first:
        return
    for name, found in figures.items():
        print(f"{name}: perplexity {found['perplexity']:.3f} at CR {found['cr']:.2f}, unmodified {found['teacher_perplexity']:.3f}")
    print(f"written to {a.output / 'model'}")


if __name__ == "__main__":
    sys.exit(main())
