"""accrete retrofit: trains a Llama to compress its cache. `python3 -m retrofit --help` lists the flags."""
import argparse
import pathlib
import signal
import sys
import time

STARTED = time.monotonic()
EXIT_FAILED, EXIT_USAGE = 1, 2


def flags():
    p = argparse.ArgumentParser(prog="accrete retrofit", description="trains a Llama to compress its cache (DMC)")
    add = p.add_argument
    add("model", help="Hugging Face directory or GGUF file")
    add("--data", action="append", required=True, metavar="FILES[=SHARE]", help="token files of `retrofit.tokens`; may be repeated")
    add("--eval-data", metavar="FILES", help="held-out token files")
    add("--output", required=True, type=pathlib.Path, metavar="DIR", help="checkpoints, log, plots, and the result in DIR/model")
    add("--target-cr", type=float, default=4.0)
    add("--window", type=int, default=12)
    add("--offset", type=float, default=5.0)
    add("--loss", choices=["lm", "distill"], default="distill")
    add("--lm-share", type=float, default=0.0, help="share of cross entropy in a distillation loss")
    add("--lora-rank", type=int, default=0, help="train and save a LoRA adapter; 0: all weights")
    add("--lr", type=float, default=0.0, help="default 1e-3 with LoRA, 1e-4 without")
    add("--row-lr", type=float, default=3e-3, help="of the decision rows")
    add("--cr-weight", type=float, default=1.0, help="of the compression term in the loss")
    add("--minutes", type=float, default=0.0, help="length of the run by the clock")
    add("--steps", type=int, default=0, help="length of the run in steps")
    add("--zero-share", type=float, default=0.05, help="of the run for stage 1")
    add("--grow-share", type=float, default=0.5, help="of the run for stage 2")
    add("--branch-cr", type=float, default=0.0, help="writes a snapshot when the growing CR passes this")
    add("--from", dest="snapshot", metavar="FILE", help="begin at a snapshot, fine-tuning alone")
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
    if a.target_cr < 1:
        p.error(f"--target-cr {a.target_cr:g}: must be at least 1")
    if not 0 <= a.lm_share <= 1:
        p.error("--lm-share: must be in 0..1")
    if min(a.rows, a.micro_batches, a.pieces) < 1 or a.length < 16:
        p.error("--rows, --micro-batches, --pieces: at least 1; --length: at least 16")


def plan_of(a):
    from retrofit.schedule import Plan
    lr = a.lr or (1e-3 if a.lora_rank else 1e-4)
    if a.snapshot:
        return Plan(target_cr=a.target_cr, zero_share=0.0, grow_share=0.0, lr=lr)
    return Plan(target_cr=a.target_cr, zero_share=a.zero_share, grow_share=a.grow_share, lr=lr)


def build(a):
    """-> Trainer"""
    import torch

    from retrofit import checkpoint, data, model_files, student, trainer, weights
    from retrofit.schedule import Clock
    device = student.device_of(a.device)
    torch.manual_seed(a.seed)
    wide = a.dtype == "float32" or (a.dtype == "auto" and device.type == "cpu")
    dtype = torch.float32 if wide else torch.bfloat16
    source = model_files.open_checkpoint(a.model)
    attention = a.attention if a.attention != "auto" else "full" if device.type == "cpu" else "flex"
    compiled = device.type == "cuda" and not a.enforce_eager
    network = student.Network(source, {
        "window": a.window, "offset": a.offset, "mix": a.lm_share if a.loss == "distill" else 1.0, "pieces": a.pieces,
        "compiled": compiled, "attention": attention, "teacher": a.loss == "distill"}, device, dtype)
    train = data.Mixture([data.parse_source(text) for text in a.data], a.seed)
    held_out = data.Mixture([data.parse_source(a.eval_data)], a.seed) if a.eval_data else None
    parts = {"checkpoint": source, "network": network, "train": train, "held_out": held_out,
             "weights": weights.Weights(source, device, dtype, a.lora_rank)}
    names = ("output", "rows", "length", "micro_batches", "save_seconds", "eval_seconds", "log_steps", "eval_batches", "branch_cr", "row_lr", "cr_weight", "seed")
    options = trainer.Options(**{name: getattr(a, name) for name in names}, base_name=pathlib.Path(a.model).name)
    made = trainer.Trainer(parts, plan_of(a), Clock(a.steps, a.minutes), options)
    if a.snapshot:
        made.set_parameters(checkpoint.load(a.snapshot, device)["parameters"])
    return made


def main():
    p = flags()
    a = p.parse_args()
    check(p, a)
    try:
        import torch  # noqa: F401
        from retrofit import data, model_files
    except ImportError as error:
        print(f"accrete retrofit: error: {error}; it needs PyTorch 2.6 or newer, safetensors, tokenizers and gguf", file=sys.stderr)
        return EXIT_FAILED
    try:
        run = build(a)
    except (data.DataError, model_files.ModelFileError, OSError) as error:
        print(f"accrete retrofit: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: setattr(run, "stopping", True))
    if run.run(STARTED):
        figures = run.finish()
        if figures:
            print(f"held-out perplexity {figures['perplexity']:.3f} at CR {figures['cr']:.2f}, unmodified {figures['teacher_perplexity']:.3f}")
        print(f"written to {a.output / 'model'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
