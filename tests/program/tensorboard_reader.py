#!/usr/bin/env python3
"""Trains a small job with `tensorboard: {enabled: true}`, stops it in the middle, goes on, and reads the events with
TensorBoard's own reader: every loss, rate and validation loss must be that of metrics.jsonl.

    tests/program/tensorboard_reader.py build/release/bin/lockstep

Exit code 77, which the tests show as skipped, where this Python has no tensorboard; LOCKSTEP_PYTHON names another.
"""
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(f"skipped: {error}; LOCKSTEP_PYTHON may name a Python that has tensorboard")
    sys.exit(77)

JOB = """
model: {type: mlp, hidden: [16]}
data: {type: clusters, classes: 4, features: 8, samples: 512}
run: {name: r, output_dir: runs, steps: 40, eval_every: 10, checkpoint: {every: 10}}
train_batch_size: 8
fp16: {enabled: true, initial_scale_power: 20}
tensorboard: {enabled: true}
"""


def number(value):
    """What metrics.jsonl has: null where it is not finite, lr as a list of the groups'."""
    if isinstance(value, list):
        value = value[0]
    return math.nan if value is None else value


def train(program, folder):
    subprocess.run([program, "train", "job.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "job.yaml"), "w") as job:
            job.write(JOB)
        train(program, folder)
        for step in (30, 40):
            shutil.rmtree(os.path.join(folder, f"runs/r/checkpoints/step-{step}"))
        train(program, folder)  # goes on from step 20

        events = EventAccumulator(os.path.join(folder, "runs/r/tensorboard"), size_guidance={"scalars": 0})
        events.Reload()
        with open(os.path.join(folder, "runs/r/metrics.jsonl")) as file:
            steps = [json.loads(line) for line in file]
        keys = {"Train/Samples/train_loss": "loss", "Train/Samples/lr": "lr", "Train/Samples/loss_scale": "loss_scale",
                "Train/Samples/grad_norm": "grad_norm", "Train/Samples/val_loss": "val_loss"}
        compared = 0
        for tag, key in keys.items():
            expected = {m["step"] * 8: number(m[key]) for m in steps if key in m}
            read = [(event.step, event.value) for event in events.Scalars(tag)]
            assert [x for x, _ in read] == sorted(expected), f"{tag}: other steps: {read}"
            for x, value in read:
                same = math.isclose(value, expected[x], rel_tol=1e-6) or (math.isnan(value) and math.isnan(expected[x]))
                assert same, f"{tag} at {x}: {value} is not {expected[x]}"
                compared += 1
        assert len(steps) == 40 and compared == 4 * 40 + 4, compared
        print(f"{compared} values of {len(keys)} tags are those of metrics.jsonl")


if __name__ == "__main__":
    main()
