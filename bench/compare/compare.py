#!/usr/bin/env python3
"""Lockstep beside its rivals on this machine: the same shapes, interleaved, and ratios.

    bench/compare/compare.py --python /path/to/venv/bin/python [--only step optimizer allreduce] [--rounds N]

Each round starts every variant once, one after the other, as a process of its own that takes a few samples; so what
else happens on the machine, and its drift, meets all of them. Of a variant's samples the lower quartile and the
smallest are shown: what others took can only make a sample longer. Ratios are rival : ours, above 1 is ours faster.
The table says the machine, the load before and after, versions and the commit; --json has every sample.

Rivals: PyTorch eager and compiled with fused AdamW, DeepSpeed's CPUAdam and gloo (through PyTorch) from the
interpreter of --python; MPI's own all-reduce inside `lockstep bench allreduce`; llm.c by the path of a trainer that
you have built for a shape (--llmc "124M 4x64=DIR": train_gpt2 with its checkpoint and data in DIR, as its README has
it; other shapes are other checkpoints, and other B and T in its main()).
What is not given is left out and said so.
"""
import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.dirname(os.path.dirname(HERE))

# name: layers, heads, width, classes, batch, length
SHAPES = {
    "10.7M 4x64": (6, 6, 384, 65, 4, 64),
    "10.7M 8x256": (6, 6, 384, 65, 8, 256),
    "124M 4x64": (12, 12, 768, 50257, 4, 64),
    "124M 4x256": (12, 12, 768, 50257, 4, 256),
}


class Missing(Exception):
    """A rival that is not on this machine."""


def run(command, env=None, cwd=None):
    """Standard output of `command`; what it says on the other stream is shown if it fails."""
    done = subprocess.run(command, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def last_json(text):
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def lockstep_bench(args, words, launcher=()):
    """What `lockstep bench` measured: {name of a line: [seconds]} and its machine."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        run([*launcher, args.lockstep, "bench", *words, "--json", path, "--most-waited", "1e6",
             "--samples", str(args.samples)])
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    lines = {line["name"]: [s["seconds"] for s in line["samples"]] for line in told["benches"][0]["lines"]}
    return lines, told["machine"]


def lockstep_step(args, shape, bf16, env=None):
    layers, heads, width, classes, batch, length = shape
    sets = {"model.preset": None, "model.n_layer": layers, "model.n_head": heads, "model.n_embd": width,
            "model.block_size": length, "train_batch_size": batch, "train_micro_batch_size_per_gpu": batch,
            "gradient_accumulation_steps": 1, "gradient_clipping": 1.0, "bf16.enabled": str(bf16).lower()}
    words = ["step", os.path.join(HERE, "gpt.yaml"), "--classes", str(classes), "--peak", "256",
             "--threads", str(args.threads)]
    for key, value in sets.items():
        if value is not None:
            words += ["--set", f"{key}={value}"]
    before = {key: os.environ.get(key) for key in env or {}}
    os.environ.update(env or {})
    try:
        lines, machine = lockstep_bench(args, words)
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    return lines["step"], f"{machine['version']} ({machine['commit']}), {machine['isa']}"


def torch_script(args, script, words):
    if args.python is None:
        raise Missing("no --python")
    told = last_json(run([args.python, os.path.join(HERE, script), *words, "--samples", str(args.samples)],
                         # The compiler's helpers would stay and compete with what they compiled.
                         env={"OMP_NUM_THREADS": str(args.threads), "TORCHINDUCTOR_COMPILE_THREADS": "1"}))
    return told["samples"], told["version"]


def torch_step(args, shape, bf16, compiled):
    words = [f"--{name}={value}" for name, value in
             zip(("layers", "heads", "width", "classes", "batch", "length"), shape)]
    words += ["--threads", str(args.threads), "--seconds", str(args.seconds)]
    return torch_script(args, "torch_step.py", words + ["--bf16"] * bf16 + ["--compiled"] * compiled)


def llmc_step(args, name):
    folder = dict(pair.split("=", 1) for pair in args.llmc).get(name)
    if folder is None:
        raise Missing("no --llmc of this shape")
    # The trainer prints its steps and is stopped after enough of them. Into a pipe they would come by the block, after
    # dozens of steps and its long pauses for validation and samples of text; stdbuf has them by the line.
    with subprocess.Popen(["stdbuf", "-oL", "./train_gpt2"], cwd=folder, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": str(args.threads)}) as trainer:
        samples, end = [], None
        for line in trainer.stdout:
            took = re.search(r"took ([0-9.]+) ms", line)
            if took:
                samples.append(float(took[1]) / 1e3)
                # The first step, which allocates, does not count, and at least two do.
                end = end or time.monotonic() + args.seconds
                if len(samples) > args.samples or (len(samples) > 2 and time.monotonic() > end):
                    break
        trainer.terminate()
    if len(samples) < 3:
        raise RuntimeError(f"{folder}/train_gpt2 ended after {len(samples)} steps")
    return samples[1:], "a build of its own trainer"


def step_tasks(args):
    for name in args.shapes:
        shape = SHAPES[name]
        tokens = shape[4] * shape[5]
        for precision in args.precisions:
            bf16 = precision == "bf16"
            variants = {"lockstep": lambda s=shape, b=bf16: lockstep_step(args, s, b)}
            variants["PyTorch eager"] = lambda s=shape, b=bf16: torch_step(args, s, b, False)
            if args.compiled:
                variants["PyTorch compiled"] = lambda s=shape, b=bf16: torch_step(args, s, b, True)
            if not bf16:
                variants["llm.c"] = lambda n=name: llmc_step(args, n)
            yield f"step {name} {precision}", "tokens/s", tokens, variants


def bf16_tasks(args):
    """Our own precisions beside each other, and the ways to multiply bf16 that this CPU has."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    for name in args.shapes:
        shape = SHAPES[name]
        variants = {"lockstep fp32": lambda s=shape: lockstep_step(args, s, False)}
        for way, there in (("widened", True), ("dot", "avx512_bf16" in flags), ("tiles", "amx_bf16" in flags)):
            if there:
                variants[f"lockstep bf16 {way}"] = (
                    lambda s=shape, w=way: lockstep_step(args, s, True, {"LOCKSTEP_BF16": w}))
        yield f"step {name}, fp32 : bf16", "tokens/s", shape[4] * shape[5], variants


def optimizer_tasks(args):
    for elements in args.elements:
        names = {"lockstep": "adamw fp32", "4 reads and 3 writes in place": "4 reads and 3 writes in place"}
        last = {}

        def ours(which, elements=elements, last=last, names=names):
            # One process measures both, in turn; the second asks for what the first has.
            if which == "lockstep":
                last["lines"], machine = lockstep_bench(
                    args, ["optimizer", "--elements", str(elements), "--threads", str(args.threads)])
                last["version"] = f"{machine['version']} ({machine['commit']}), {machine['isa']}"
            return last["lines"][names[which]], last["version"]

        variants = {which: (lambda w=which: ours(w)) for which in names}
        for which in ("fused", "foreach", "deepspeed"):
            title = "DeepSpeed CPUAdam" if which == "deepspeed" else f"PyTorch AdamW {which}"
            variants[title] = lambda w=which, n=elements: torch_script(
                args, "torch_optimizer.py", ["--which", w, "--elements", str(n), "--threads", str(args.threads)])
        yield f"AdamW fp32, {elements} parameters", "GB/s (28 B each)", 28e-9 * elements, variants


def allreduce_tasks(args):
    for size in args.bytes:
        last = {}

        def ours(which, size=size, last=last):
            if which == "lockstep":
                last["lines"], machine = lockstep_bench(args, ["allreduce", "--bytes", str(size), "--threads", "1"],
                                                        ["mpirun", "-n", "2"])
                last["version"] = f"{machine['version']} ({machine['commit']}), {machine['comm']}"
            prefix = "all-reduce" if which == "lockstep" else which
            return next(v for k, v in last["lines"].items() if k.startswith(f"{prefix} of ")), last["version"]

        variants = {which: (lambda w=which: ours(w)) for which in ("lockstep", "MPI_Allreduce", "MPI_Iallreduce")}
        variants["gloo"] = lambda s=size: torch_script(args, "gloo_allreduce.py", ["--bytes", str(s)])
        yield f"all-reduce of {size} bytes, 2 ranks", "GB/s", size * 1e-9, variants


TASKS = {"step": step_tasks, "bf16": bf16_tasks, "optimizer": optimizer_tasks, "allreduce": allreduce_tasks}


def quartile(samples):
    return statistics.quantiles(samples, n=4, method="inclusive")[0] if len(samples) > 1 else samples[0]


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = file.read()
    model = re.search(r"model name\s*: (.*)", lines)[1]
    return f"{os.cpu_count()} x {model}"


def compare(title, unit, amount, variants, rounds):
    samples, versions, left_out = {}, {}, {}
    load = os.getloadavg()[0]
    for _ in range(rounds):
        for name, take in variants.items():
            if name in left_out:
                continue
            try:
                took, versions[name] = take()
                samples.setdefault(name, []).extend(took)
            except Missing as missing:
                left_out[name] = str(missing)
    ours = next(iter(variants))
    print(f"\n### {title}\n\nLoad {load:.1f} before, {os.getloadavg()[0]:.1f} after; {rounds} rounds.\n")
    print(f"| | lower quartile, ms | smallest, ms | {unit} | : ours, by quartiles | by smallest | samples |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, took in samples.items():
        low, least = quartile(took), min(took)
        print(f"| {name} | {low * 1e3:.3f} | {least * 1e3:.3f} | {amount / low:.5g} | "
              f"{low / quartile(samples[ours]):.2f} | {least / min(samples[ours]):.2f} | {len(took)} |")
    for name, why in left_out.items():
        print(f"\n{name}: left out, {why}.")
    print("\n" + "; ".join(sorted({f"{name}: {version}" for name, version in versions.items()})), flush=True)
    return {"title": title, "load": load, "samples": samples, "versions": versions, "left_out": left_out}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockstep", default=os.path.join(SOURCES, "build/release/bin/lockstep"))
    parser.add_argument("--python", help="an interpreter that has torch (and deepspeed)")
    parser.add_argument("--llmc", nargs="+", default=[], metavar="SHAPE=DIR", help="folders of built trainers of llm.c")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="of steps")
    parser.add_argument("--elements", nargs="+", type=int, default=[10_700_000, 124_439_808])
    parser.add_argument("--bytes", nargs="+", type=int, default=[1 << 16, 1 << 20, 1 << 24, 1 << 26, 497_759_232])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8, help="of one start of one variant")
    parser.add_argument("--seconds", type=float, default=60,
                        help="the longest that one start of PyTorch or llm.c takes samples")
    parser.add_argument("--no-compile", dest="compiled", action="store_false", help="leave torch.compile out")
    parser.add_argument("--json", help="every sample: FILE")
    args = parser.parse_args()
    if not os.access(args.lockstep, os.X_OK):
        sys.exit(f"compare.py: {args.lockstep} is not there: build it, or say --lockstep")

    print(f"{cpu_name()}, {args.threads} threads, {os.uname().release}, {datetime.date.today()}\n\n"
          f"    bench/compare/compare.py {' '.join(sys.argv[1:])}")
    told = []
    for task in (task for which in args.only for task in TASKS[which](args)):
        told.append(compare(*task, args.rounds))
        # After each, so that a run that is cut off keeps what it has.
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump(told, file, indent=1)


if __name__ == "__main__":
    main()
