#!/usr/bin/env python3
"""Records tests/goldens/opt_{lion,adagrad,lamb,muon}*.json: parameters after every step on given gradients.

Adagrad is torch's own. Lion and LAMB are not in torch: they are the formulas of their papers (LAMB's in DeepSpeed's
form, which corrects the step and not the moments), written here once more, for numpy. Muon is torch's, with its
products in the parameters' precision in place of bfloat16.

    python tests/golden/record_optimizers.py [FOLDER]       needs numpy, torch 2.9 or newer
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch

STEPS = 20


def lion(params, betas=(0.9, 0.99), lr=1e-4, weight_decay=0.0):
    def start(p):
        return {"m": np.zeros_like(p)}

    def step(p, g, state, rate, t):
        of = p.dtype.type
        b1, b2 = of(betas[0]), of(betas[1])
        c = b1 * state["m"] + (1 - b1) * g
        state["m"] = b2 * state["m"] + (1 - b2) * g
        return p - of(rate) * (np.sign(c) + of(weight_decay) * p)

    return start, step, lr


def lamb(params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, max_coeff=10.0, min_coeff=0.01,
         bias_correction=True):
    def start(p):
        return {"m": np.zeros_like(p), "v": np.zeros_like(p)}

    def step(p, g, state, rate, t):
        of = p.dtype.type
        b1, b2 = of(betas[0]), of(betas[1])
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g * g
        u = state["m"] / (np.sqrt(state["v"]) + of(eps)) + of(weight_decay) * p
        p_norm, u_norm = math.sqrt(np.sum(p.astype(float)**2)), math.sqrt(np.sum(u.astype(float)**2))
        trust = 1.0
        if p_norm > 0 and u_norm > 0:
            trust = min(max(p_norm / u_norm, min_coeff), max_coeff)
        size = rate
        if bias_correction:
            size *= math.sqrt(1 - betas[1]**t) / (1 - betas[0]**t)
        return p - of(size * trust) * u

    return start, step, lr


def by_formula(make, params, tensors, grads, rates, dtype):
    """The states of all tensors, one after the other, after each step."""
    start, step, lr = make(params, **params)
    values = [t.astype(dtype) for t in tensors]
    states = [start(v) for v in values]
    found = [np.concatenate(values).tolist()]
    for t, grad in enumerate(grads):
        at = 0
        for i, value in enumerate(values):
            g = np.array(grad[at:at + value.size], dtype)
            at += value.size
            values[i] = step(value, g, states[i], rates[t] if rates else lr, t + 1)
        found.append(np.concatenate(values).astype(float).tolist())
    return found


def by_torch(name, params, tensors, shapes, grads, rates, dtype):
    weights = [torch.nn.Parameter(torch.tensor(t, dtype=dtype).reshape(s)) for t, s in zip(tensors, shapes)]
    optimizer = getattr(torch.optim, name)(weights, **params)

    def state():
        return torch.cat([w.detach().reshape(-1) for w in weights]).double().tolist()

    found = [state()]
    for t, grad in enumerate(grads):
        at = 0
        for w in weights:
            w.grad = torch.tensor(grad[at:at + w.numel()], dtype=dtype).reshape(w.shape)
            at += w.numel()
        if rates:
            optimizer.param_groups[0]["lr"] = rates[t]
        optimizer.step()
        found.append(state())
    return found




def keep_precision():
    """Muon's products without torch's cast to bfloat16."""
    from torch.optim import _muon
    ortho, cast = _muon._zeropower_via_newtonschulz, torch.Tensor.to

    def to(self, *args, **kwargs):
        if kwargs.get("dtype") == torch.bfloat16:
            kwargs["dtype"] = self.dtype
        return cast(self, *args, **kwargs)

    def whole(*args):
        torch.Tensor.to = to
        try:
            return ortho(*args)
        finally:
            torch.Tensor.to = cast

    _muon._zeropower_via_newtonschulz = whole


def main():
    keep_precision()
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1] / "goldens"
    falling = [0.02 * 0.9**t for t in range(STEPS)]
    cases = [
        ("opt_lion", "Lion", {"lr": 0.01, "betas": [0.9, 0.99], "weight_decay": 0.1}, [[6]], None),
        ("opt_lion_rates", "Lion", {"lr": 0.02, "betas": [0.95, 0.98]}, [[6]], falling),
        ("opt_adagrad", "Adagrad", {"lr": 0.05, "weight_decay": 0.01}, [[6]], None),
        ("opt_adagrad_initial", "Adagrad", {"lr": 0.02, "initial_accumulator_value": 0.1, "eps": 1e-6}, [[6]], falling),
        ("opt_lamb", "Lamb", {"lr": 0.01, "betas": [0.9, 0.999], "eps": 1e-6, "weight_decay": 0.01}, [[6], [3], [5]],
         None),
        ("opt_lamb_coeffs", "Lamb",
         {"lr": 0.02, "max_coeff": 0.3, "min_coeff": 0.2, "bias_correction": False, "weight_decay": 0.1}, [[4], [7]],
         falling),
        ("opt_muon", "Muon", {"lr": 0.02}, [[3, 5], [6, 2], [4, 4]], None),
        ("opt_muon_plain", "Muon", {"lr": 0.02, "momentum": 0.8, "nesterov": False, "weight_decay": 0.0, "ns_steps": 3},
         [[5, 3]], falling),
    ]
    for number, (name, optimizer, params, shapes, rates) in enumerate(cases):
        rng = np.random.default_rng(100 + number)
        tensors = [rng.uniform(-1, 1, math.prod(s)) for s in shapes]
        if name == "opt_lamb":
            tensors[1] *= 0  # a norm of zero
        if name == "opt_lamb_coeffs":
            tensors[0] *= 0.1  # a ratio below the smallest; the other's is beyond the largest
        grads = rng.normal(size=(STEPS, sum(math.prod(s) for s in shapes))).tolist()
        if optimizer == "Lion":
            for grad in grads[:3]:
                grad[0] = 0.0  # whose sign is zero
        trace = {"name": name, "kind": "optimizer", "optimizer": optimizer, "params": params, "shapes": shapes,
                 "param0": np.concatenate(tensors).tolist(), "grads": grads, "lr_per_step": rates}
        source = "torch " + torch.__version__
        for key, of_numpy, of_torch in (("float64", np.float64, torch.float64), ("float32", np.float32, torch.float32)):
            if optimizer in ("Lion", "Lamb"):
                source = "numpy " + np.__version__ + ", by the formula"
                trace[key] = by_formula({"Lion": lion, "Lamb": lamb}[optimizer], params, tensors, grads, rates, of_numpy)
            else:
                trace[key] = by_torch(optimizer, params, tensors, shapes, grads, rates, of_torch)
        trace["source"] = {"env": source}
        (folder / (name + ".json")).write_text(json.dumps(trace) + "\n")


if __name__ == "__main__":
    main()
