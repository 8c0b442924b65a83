#!/usr/bin/env python3
"""What a training step costs against the model's size and the length of its samples, beside the theory, as a picture.

    bench/curves.py [--lockstep build/release/bin/lockstep] [--threads N] [--samples N] [--bf16] \\
                    --svg docs/cost_curves.svg --json curves.json

Each point is `lockstep bench step`: whole steps on random samples, and beside them, in the same process, the rate of
large matrix products, the machine's ceiling. The line is the plan's FLOPs at the best of these rates: the least time
there can be. Both axes are logarithmic, so a cost that grows in proportion is a line of slope 1. Needs Python alone.

The file of --json is written after each point, and a later run with the same settings goes on from it: it measures the
points that the file does not have.
"""
import argparse
import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.dirname(HERE)

# Name of the size: layers, heads, width. 1 x 256 positions; the vocabulary grows with the model as published ones do.
SIZES = [
    ("1M", 4, 4, 128, 256),
    ("3M", 6, 6, 192, 1024),
    ("11M", 6, 6, 384, 1024),
    ("30M", 8, 8, 512, 8192),
    ("51M", 8, 8, 512, 50257),
    ("124M", 12, 12, 768, 50257),
    ("355M", 24, 16, 1024, 50257),
]
# The 11M model on 2,048 positions, cut into samples of so many.
LENGTHS = [64, 128, 256, 512, 1024, 2048]


def measure(args, layers, heads, width, classes, batch, length):
    """A step of this shape: seconds, tokens, FLOPs by the plan, the ceiling's FLOP/s, planned bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "step.json")
        settings = {
            "model.n_layer": layers, "model.n_head": heads, "model.n_embd": width, "model.block_size": length,
            "train_batch_size": batch, "train_micro_batch_size_per_gpu": batch,
            "bf16.enabled": "true" if args.bf16 else "false",
        }
        command = [args.lockstep, "bench", "step", os.path.join(HERE, "compare", "gpt.yaml"), "--json", path,
                   "--classes", str(classes), "--threads", str(args.threads), "--samples", str(args.samples),
                   "--seconds", "240"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr[-2000:]}")
        with open(path, encoding="utf-8") as file:
            told = json.load(file)
    report = told["benches"][0]
    step = next(line for line in report["lines"] if line.get("item") == "tokens")
    seconds = step["seconds"]["median"]
    return {
        "seconds": seconds, "p10": step["seconds"]["p10"], "p90": step["seconds"]["p90"],
        "disturbed": step["disturbed"], "tokens": step["items"], "flops": step["flops"], "share": step["share"],
        "ceiling": step["flops"] / seconds / step["share"], "bytes": report["figures"]["planned_bytes"],
        "machine": told["machine"],
    }


def marks(low, high):
    """Round values between low and high for an axis: powers of ten, and 2 and 5 times them where few of those fit."""
    powers = [10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    for factors in ((1,), (1, 2, 5)):
        values = [f * p for p in powers for f in factors if low <= f * p <= high]
        if len(values) > 2:
            break
    return values


def panel(points, left, title, x_label, ticks):
    """SVG of one picture: measured points and the line of the theory. points: (x, measured s, least s)."""
    width, height, top = 380, 300, 80
    xs = [p[0] for p in points]
    ys = [s for p in points for s in p[1:]]
    x0, x1 = math.log(min(xs) / 1.25), math.log(max(xs) * 1.25)
    y0, y1 = math.log(min(ys) / 1.4), math.log(max(ys) * 1.4)

    def place(x, y):
        return (left + (math.log(x) - x0) / (x1 - x0) * width, top + height - (math.log(y) - y0) / (y1 - y0) * height)

    out = [f'<text x="{left}" y="{top - 14}" class="title">{title}</text>']
    for value in marks(math.exp(y0), math.exp(y1)):
        y = place(xs[0], value)[1]
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        text = f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{text}</text>')
    for x, text in ticks:
        at = place(x, math.exp(y0))[0]
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + height}" class="grid"/>')
        out.append(f'<text x="{at:.1f}" y="{top + height + 16}" class="tick" text-anchor="middle">{text}</text>')
    out.append(f'<rect x="{left}" y="{top}" width="{width}" height="{height}" class="frame"/>')
    middle = left + width / 2
    out.append(f'<text x="{middle}" y="{top + height + 36}" class="tick" text-anchor="middle">{x_label}</text>')
    for column, name in ((2, "theory"), (1, "measured")):
        path = " ".join("{:.1f},{:.1f}".format(*place(p[0], p[column])) for p in points)
        out.append(f'<polyline points="{path}" class="{name}"/>')
    for p in points:
        out.append('<circle cx="{:.1f}" cy="{:.1f}" r="4" class="dot"/>'.format(*place(p[0], p[1])))
    return out


def picture(results):
    points = results["sizes"] + results["lengths"]
    machine = points[0]["machine"]
    # What bf16 products use says nothing about a run in fp32.
    isa = machine["isa"] if results["precision"] == "bf16" else machine["isa"].split(",")[0]
    title = (f"GPT-2 on {machine['cpu']}, {isa}, {machine['threads']} threads, {results['precision']}; "
             f"lockstep {machine['commit']}")
    # One rate for all: in each point's own, what others did to the machine would bend the line of the theory.
    rate = max(r["ceiling"] for r in points)
    sizes = [(r["parameters"], r["seconds"], r["flops"] / rate) for r in results["sizes"]]
    lengths = [(r["length"], r["seconds"], r["flops"] / rate) for r in results["lengths"]]
    style = ("text{font-family:sans-serif;fill:#222}.title{font-size:14px;font-weight:bold}.tick{font-size:11px}"
             ".frame{fill:none;stroke:#666}.grid{stroke:#ddd}.theory{fill:none;stroke:#999;stroke-dasharray:5 4;"
             "stroke-width:1.5}.measured{fill:none;stroke:#1f6fb2;stroke-width:2}.dot{fill:#1f6fb2}")
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 470" role="img">', f"<title>{title}</title>",
             f"<style>{style}</style>", '<rect width="960" height="470" fill="white"/>',
             f'<text x="70" y="20" class="tick">{title}</text>']
    parts += panel(sizes, 70, "A step against the model's size", "parameters (1 x 256 positions)",
                   [(r["parameters"], r["name"]) for r in results["sizes"]])
    parts += panel(lengths, 550, "A step against the samples' length", "positions of a sample (2,048 a step, 11M)",
                   [(r["length"], f"{r['length']:,}") for r in results["lengths"]])
    parts.append('<line x1="70" x2="100" y1="445" y2="445" class="measured"/><text x="106" y="449" class="tick">'
                 'measured, median</text>')
    parts.append('<line x1="240" x2="270" y1="445" y2="445" class="theory"/><text x="276" y="449" class="tick">'
                 "FLOPs of the plan at the best rate of large products in the run</text>")
    return "\n".join(parts + ["</svg>", ""])


def load(args):
    """What --json holds already; nothing where it is not there. The settings are those that points share."""
    fresh = {"precision": "bf16" if args.bf16 else "fp32", "threads": args.threads, "samples": args.samples,
             "sizes": [], "lengths": []}
    if not args.json or not os.path.exists(args.json):
        return fresh
    with open(args.json, encoding="utf-8") as file:
        results = json.load(file)
    for key in ("precision", "threads", "samples"):
        if results.get(key) != fresh[key]:
            sys.exit(f"curves.py: {args.json} has points with {key} {results.get(key)}, these would have {fresh[key]}; "
                     "name another file, or remove this one")
    return results


def save(path, results):
    # Under another name first, so that a run that is cut off here leaves the file as it was.
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    os.replace(path + ".tmp", path)


def take(args, results):
    """Measures the points that `results` lacks."""
    wanted = [("sizes", {"name": name, "parameters": classes * width + 256 * width
                         + layers * (12 * width * width + 13 * width) + 2 * width},
               (layers, heads, width, classes, 1, 256)) for name, layers, heads, width, classes in SIZES]
    wanted += [("lengths", {"length": length}, (6, 6, 384, 1024, 2048 // length, length)) for length in LENGTHS]
    for curve, point, shape in wanted:
        label = point.get("name") or point["length"]
        if any(point.items() <= there.items() for there in results[curve]):
            print(f"{label:>5} is there", flush=True)
            continue
        got = measure(args, *shape)
        for other in results["sizes"] + results["lengths"]:
            if other["machine"] != got["machine"]:
                sys.exit(f"curves.py: {args.json} has points of {other['machine']}, this is {got['machine']}; "
                         "name another file, or remove this one")
        results[curve].append({**point, **got})
        print(f"{label:>5} {got['seconds'] * 1e3:10.1f} ms  {got['share']:.3f} of the ceiling"
              f"{'  (disturbed)' if got['disturbed'] else ''}", flush=True)
        if args.json:
            save(args.json, results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockstep", default=os.path.join(SOURCES, "build/release/bin/lockstep"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--svg", help="the picture")
    parser.add_argument("--json", help="all figures; points that are there are not measured again")
    parser.add_argument("--from", dest="source", action="store_true", help="measure nothing: draw what --json holds")
    args = parser.parse_args()
    if args.source:
        with open(args.json, encoding="utf-8") as file:
            results = json.load(file)
    else:
        results = load(args)
        take(args, results)
    if args.svg:
        with open(args.svg, "w", encoding="utf-8") as file:
            file.write(picture(results))


if __name__ == "__main__":
    main()
