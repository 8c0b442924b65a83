#!/usr/bin/env python3
"""Records torch_traces.json: what torch's schedulers make an optimizer use, update by update.

Run by hand, where torch is installed, when a case is added; the tests read only its output:

    python3 tests/sched/torch_traces.py > tests/sched/torch_traces.json
"""
import json
import warnings

import torch

DENSE = 40  # the first updates are all recorded, later ones here and there
FAR = [41, 50, 60, 61, 75, 99, 100, 101, 150, 199, 200, 201, 250, 399, 400, 401, 500, 600, 601, 750, 999, 1000, 1500, 2000]

ADAM = {"type": "AdamW", "groups": [{"lr": 1e-3, "betas": [0.9, 0.95]}]}
SGD = {"type": "SGD", "groups": [{"lr": 0.1, "momentum": 0.9}]}
TWO = {"type": "AdamW", "groups": [{"lr": 3e-4, "betas": [0.9, 0.999]}, {"lr": 0.02, "betas": [0.8, 0.95]}]}
TWO_SGD = {"type": "SGD", "groups": [{"lr": 0.3, "momentum": 0.5}, {"lr": 0.07, "momentum": 0.9}]}

CASES = [
    ("StepLR", {"step_size": 1}, SGD),
    ("StepLR", {"step_size": 7, "gamma": 0.5}, ADAM),
    ("StepLR", {"step_size": 30}, TWO),
    ("StepLR", {"step_size": 10, "gamma": 1.1}, SGD),
    ("MultiStepLR", {"milestones": [5]}, ADAM),
    ("MultiStepLR", {"milestones": [30, 12, 200], "gamma": 0.3}, SGD),
    ("MultiStepLR", {"milestones": [0, 9, 9, 40], "gamma": 0.7}, TWO),
    ("MultiStepLR", {"milestones": [1, 2, 3, 4, 5, 6], "gamma": 0.9}, SGD),
    ("ConstantLR", {}, ADAM),
    ("ConstantLR", {"factor": 0.25, "total_iters": 17}, TWO),
    ("ConstantLR", {"factor": 0.1, "total_iters": 1}, SGD),
    ("ConstantLR", {"factor": 1.0, "total_iters": 3}, SGD),
    ("LinearLR", {}, SGD),
    ("LinearLR", {"start_factor": 0.01, "total_iters": 100}, ADAM),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 16}, SGD),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 1000}, TWO),
    ("LinearLR", {"start_factor": 0.9, "end_factor": 0.0, "total_iters": 30}, ADAM),
    ("LinearLR", {"start_factor": 1e-6, "end_factor": 0.7, "total_iters": 1}, SGD),
    ("ExponentialLR", {"gamma": 0.9}, ADAM),
    ("ExponentialLR", {"gamma": 0.9999}, TWO),
    ("ExponentialLR", {"gamma": 1.01}, SGD),
    ("PolynomialLR", {}, ADAM),
    ("PolynomialLR", {"total_iters": 30, "power": 2.0}, TWO),
    ("PolynomialLR", {"total_iters": 1000, "power": 0.5}, SGD),
    ("PolynomialLR", {"total_iters": 100, "power": 0.0}, SGD),
    ("CosineAnnealingLR", {"T_max": 20}, ADAM),
    ("CosineAnnealingLR", {"T_max": 50, "eta_min": 1e-5}, TWO),
    ("CosineAnnealingLR", {"T_max": 1}, SGD),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.2}, SGD),
    ("CosineAnnealingLR", {"T_max": 600}, SGD),
    ("CosineAnnealingLR", {"T_max": 2000, "eta_min": 0.01}, SGD),
    ("CosineAnnealingWarmRestarts", {"T_0": 10}, ADAM),
    ("CosineAnnealingWarmRestarts", {"T_0": 5, "T_mult": 2, "eta_min": 1e-6}, TWO),
    ("CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3}, SGD),
    ("CosineAnnealingWarmRestarts", {"T_0": 37, "T_mult": 1, "eta_min": 0.01}, SGD),
    ("OneCycleLR", {"max_lr": 0.01, "total_steps": 30}, ADAM),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 1001, "pct_start": 0.25, "anneal_strategy": "linear"}, SGD),
    ("OneCycleLR", {"max_lr": [0.01, 0.2], "total_steps": 100, "three_phase": True}, TWO),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 61, "three_phase": True, "anneal_strategy": "linear",
                    "pct_start": 0.4}, TWO_SGD),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 40, "cycle_momentum": False, "div_factor": 10.0,
                    "final_div_factor": 100.0}, ADAM),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 25, "pct_start": 0.0, "base_momentum": [0.5, 0.6],
                    "max_momentum": [0.9, 0.99]}, TWO_SGD),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 25, "pct_start": 1.0}, SGD),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 1}, ADAM),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 20, "pct_start": 0.9, "three_phase": True}, SGD),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 8}, SGD),
    ("CyclicLR", {"base_lr": 1e-4, "max_lr": 1e-2, "step_size_up": 5, "step_size_down": 11, "mode": "triangular2"}, ADAM),
    ("CyclicLR", {"base_lr": [0.01, 0.02], "max_lr": [0.1, 0.3], "step_size_up": 10, "mode": "exp_range",
                  "gamma": 0.995}, TWO),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "step_size_down": 0, "cycle_momentum": False}, SGD),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 13, "base_momentum": 0.6, "max_momentum": 0.95,
                  "mode": "triangular2"}, TWO_SGD),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1}, ADAM),
]


def chained(*schedulers, milestones):
    return {"schedulers": [{"type": name, "params": params} for name, params in schedulers], "milestones": milestones}


# One after another: what they leave for each other in the optimizer is what is asked here.
CHAINED = [
    (chained(("ConstantLR", {"factor": 0.1, "total_iters": 20}), ("ExponentialLR", {"gamma": 0.9}), milestones=[20]), SGD),
    (chained(("LinearLR", {"start_factor": 0.01, "total_iters": 10}), ("CosineAnnealingLR", {"T_max": 90}),
             milestones=[10]), ADAM),
    (chained(("LinearLR", {"start_factor": 0.1, "total_iters": 5}),
             ("CosineAnnealingWarmRestarts", {"T_0": 10, "T_mult": 2, "eta_min": 1e-5}), milestones=[5]), TWO),
    (chained(("CosineAnnealingWarmRestarts", {"T_0": 7}), ("StepLR", {"step_size": 9, "gamma": 0.5}),
             ("PolynomialLR", {"total_iters": 40, "power": 2.0}), milestones=[21, 60]), TWO_SGD),
    (chained(("MultiStepLR", {"milestones": [0, 4, 30], "gamma": 0.7}), ("MultiStepLR", {"milestones": [0, 3], "gamma": 0.5}),
             milestones=[12]), SGD),
    # The lr goes on from where it was, not down to the end of the first.
    (chained(("CosineAnnealingLR", {"T_max": 8, "eta_min": 0.001}), ("ConstantLR", {}), ("LinearLR", {"total_iters": 9}),
             milestones=[29, 33]), TWO_SGD),
    # OneCycleLR moves where all others start, and leaves the momentum.
    (chained(("ExponentialLR", {"gamma": 0.95}), ("OneCycleLR", {"max_lr": 0.5, "total_steps": 30}),
             ("StepLR", {"step_size": 5}), milestones=[10, 33]), SGD),
    (chained(("CosineAnnealingLR", {"T_max": 5, "eta_min": 0.001}), ("OneCycleLR", {"max_lr": [0.5, 0.2], "total_steps": 50}),
             milestones=[23]), TWO),
    (chained(("OneCycleLR", {"max_lr": 0.02, "total_steps": 20, "base_momentum": 0.7, "max_momentum": 0.8}),
             ("OneCycleLR", {"max_lr": 0.3, "total_steps": 40, "anneal_strategy": "linear", "div_factor": 5.0}),
             milestones=[17]), SGD),
    (chained(("OneCycleLR", {"max_lr": 0.02, "total_steps": 20}), ("CosineAnnealingLR", {"T_max": 30}), milestones=[20]), ADAM),
    (chained(("CyclicLR", {"base_lr": 0.003, "max_lr": 0.05, "step_size_up": 4}), ("LinearLR", {}),
             ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.02, "step_size_up": 3, "cycle_momentum": False}),
             ("ExponentialLR", {"gamma": 0.99}), milestones=[13, 20, 40]), TWO_SGD),
    (chained(("OneCycleLR", {"max_lr": 0.2, "total_steps": 25, "three_phase": True}),
             ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 6, "base_momentum": 0.5, "max_momentum": 0.99,
                           "mode": "triangular2"}), milestones=[22]), TWO_SGD),
    (chained(("LinearLR", {}), ("OneCycleLR", {"max_lr": 0.2, "total_steps": 25, "cycle_momentum": False}),
             ("ConstantLR", {"factor": 0.5, "total_iters": 4}), milestones=[6, 30]), ADAM),
    (chained(("CosineAnnealingWarmRestarts", {"T_0": 4}), ("OneCycleLR", {"max_lr": 0.2, "total_steps": 40, "pct_start": 0.0}),
             milestones=[9]), SGD),
]


def noisy(count, seed, fall=0.05, floor=0.3, noise=0.05):
    """A loss that falls to its floor, with noise from a small generator of our own."""
    losses, state = [], seed
    for i in range(count):
        state = (1103515245 * state + 12345) % 2**31
        losses.append(floor + 2.0 / (1.0 + fall * i) + noise * (state / 2**31 - 0.5))
    return losses


NAN, INF = float("nan"), float("inf")
PLATEAU = [
    ({}, noisy(120, 1, fall=0.5), SGD),
    ({"patience": 3, "factor": 0.5}, noisy(120, 2), ADAM),
    ({"patience": 0, "factor": 0.7, "threshold": 0.0}, noisy(60, 3), TWO),
    ({"patience": 2, "threshold": 0.01, "threshold_mode": "abs", "cooldown": 4}, noisy(100, 4), TWO_SGD),
    ({"patience": 1, "cooldown": 2, "factor": 0.3, "min_lr": [1e-3, 5e-3]}, noisy(100, 5), TWO_SGD),
    ({"mode": "max", "patience": 2, "factor": 0.5}, [1 - loss / 3 for loss in noisy(80, 6)], ADAM),
    ({"mode": "max", "threshold_mode": "abs", "threshold": 0.02, "patience": 1}, [-loss for loss in noisy(80, 7)], SGD),
    ({"patience": 1, "eps": 1e-4, "factor": 0.5}, [1.0] * 40, ADAM),
    ({"patience": 1, "factor": 0.5}, [2.0, NAN, 1.5, INF, INF, 1.4, NAN, NAN, NAN, 1.0, -1.0, -1.0, -2.0, 0.0, 0.0], SGD),
    ({"patience": 0, "factor": 0.5}, [NAN, NAN, 3.0, 3.0, 2.9997, 2.9996, 2.0], SGD),
]


def record_plateau(params, metrics, optimizer):
    torch_optimizer = optimizer_of(optimizer)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(torch_optimizer, **params)
    lr = []
    for metric in metrics:
        scheduler.step(metric)
        lr.append([group["lr"] for group in torch_optimizer.param_groups])
    words = [metric if metric == metric and abs(metric) != INF else str(metric) for metric in metrics]
    return {"params": params, "optimizer": optimizer, "metric": words, "lr": lr, "best": scheduler.best,
            "bad": scheduler.num_bad_epochs, "cooldown": scheduler.cooldown_counter}


def make(name, params, optimizer):
    known = torch.optim.lr_scheduler
    if name == "SequentialLR":
        parts = [make(part["type"], part["params"], optimizer) for part in params["schedulers"]]
        return known.SequentialLR(optimizer, parts, params["milestones"])
    return getattr(known, name)(optimizer, **params)


def last_update(name, params):
    """OneCycleLR ends with an error."""
    if name == "SequentialLR":
        return params["milestones"][-1] + last_update(params["schedulers"][-1]["type"], params["schedulers"][-1]["params"])
    return params["total_steps"] - 1 if name == "OneCycleLR" else FAR[-1]


def optimizer_of(optimizer):
    groups = [{"params": [torch.zeros(1, requires_grad=True)], **group} for group in optimizer["groups"]]
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    return getattr(torch.optim, optimizer["type"])(groups)


def record(name, params, optimizer):
    torch_optimizer = optimizer_of(optimizer)
    scheduler = make(name, params, torch_optimizer)
    last = last_update(name, params)
    trace = {"scheduler": name, "params": params, "optimizer": optimizer, "update": [], "lr": [], "momentum": []}
    for update in range(last + 1):
        if update <= DENSE or update in FAR or update == last:
            now = torch_optimizer.param_groups
            trace["update"].append(update)
            trace["lr"].append([group["lr"] for group in now])
            trace["momentum"].append([group["betas"][0] if "betas" in group else group["momentum"] for group in now])
        if update < last:
            torch_optimizer.step()
            scheduler.step()
    return trace


def main():
    warnings.simplefilter("error")
    traces = [record(*case) for case in CASES + [("SequentialLR", *case) for case in CHAINED]]
    text = ",\n".join(json.dumps(trace) for trace in traces)
    plateau = ",\n".join(json.dumps(record_plateau(*case)) for case in PLATEAU)
    print(f'{{"torch": "{torch.__version__}", "traces": [\n{text}\n], "plateau": [\n{plateau}\n]}}')


if __name__ == "__main__":
    main()
