#!/usr/bin/env python3
"""Records one training step of a tiny GPT-2 in PyTorch, in float64: loss, every gradient, and the parameters after one
AdamW step. The test computes the same parameters and tokens from the same formulas (tests/nn/gpt2_oracle_test.cpp).

    python3 tests/nn/record_gpt2_oracle.py > tests/nn/gpt2_oracle.json       (Debian: apt install python3-torch)
"""
import json
import math

import torch
import torch.nn.functional as F

BATCH, LENGTH, WIDTH, HEADS, LAYERS, VOCABULARY, BLOCK_SIZE = 2, 5, 8, 2, 2, 11, 6
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}


def shapes():
    yield "transformer.wte.weight", (VOCABULARY, WIDTH)
    yield "transformer.wpe.weight", (BLOCK_SIZE, WIDTH)
    for layer in range(LAYERS):
        prefix = f"transformer.h.{layer}."
        yield prefix + "ln_1.weight", (WIDTH,)
        yield prefix + "ln_1.bias", (WIDTH,)
        yield prefix + "attn.c_attn.weight", (WIDTH, 3 * WIDTH)
        yield prefix + "attn.c_attn.bias", (3 * WIDTH,)
        yield prefix + "attn.c_proj.weight", (WIDTH, WIDTH)
        yield prefix + "attn.c_proj.bias", (WIDTH,)
        yield prefix + "ln_2.weight", (WIDTH,)
        yield prefix + "ln_2.bias", (WIDTH,)
        yield prefix + "mlp.c_fc.weight", (WIDTH, 4 * WIDTH)
        yield prefix + "mlp.c_fc.bias", (4 * WIDTH,)
        yield prefix + "mlp.c_proj.weight", (4 * WIDTH, WIDTH)
        yield prefix + "mlp.c_proj.bias", (WIDTH,)
    yield "transformer.ln_f.weight", (WIDTH,)
    yield "transformer.ln_f.bias", (WIDTH,)


def initial(index, name, shape):
    """0.25 sin(0.017 i^2 + 0.61 i + 1.7 index), plus 1 for a norm's weight; rounded to float32."""
    base = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
    values = [base + 0.25 * math.sin(0.017 * i * i + 0.61 * i + 1.7 * index) for i in range(math.prod(shape))]
    return torch.tensor(values, dtype=torch.float32).double().reshape(shape).requires_grad_()


def forward(p, tokens):
    x = p["transformer.wte.weight"][tokens] + p["transformer.wpe.weight"][: tokens.shape[1]]
    mask = torch.tril(torch.ones(LENGTH, LENGTH, dtype=torch.bool))
    for layer in range(LAYERS):
        prefix = f"transformer.h.{layer}."

        def norm(x, name):
            return F.layer_norm(x, (WIDTH,), p[prefix + name + ".weight"], p[prefix + name + ".bias"], 1e-5)

        def linear(x, name):
            return x @ p[prefix + name + ".weight"] + p[prefix + name + ".bias"]

        qkv = linear(norm(x, "ln_1"), "attn.c_attn")
        q, k, v = (part.reshape(BATCH, LENGTH, HEADS, -1).transpose(1, 2) for part in qkv.split(WIDTH, dim=2))
        scores = (q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).masked_fill(~mask, -math.inf)
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(BATCH, LENGTH, WIDTH)
        x = x + linear(attended, "attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, "ln_2"), "mlp.c_fc"), approximate="tanh"), "mlp.c_proj")
    x = F.layer_norm(x, (WIDTH,), p["transformer.ln_f.weight"], p["transformer.ln_f.bias"], 1e-5)
    return x @ p["transformer.wte.weight"].T


def numbers(tensor):
    return [float(f"{value:.10g}") for value in tensor.detach().flatten().tolist()]


def main():
    p = {name: initial(index, name, shape) for index, (name, shape) in enumerate(shapes())}
    positions = torch.arange(BATCH * LENGTH)
    tokens = ((7 * positions + 3) % VOCABULARY).reshape(BATCH, LENGTH)
    targets = (5 * positions + 1) % VOCABULARY
    targets[3] = -1  # not counted
    loss = F.cross_entropy(forward(p, tokens).reshape(-1, VOCABULARY), targets, ignore_index=-1)
    loss.backward()
    optimizer = torch.optim.AdamW(p.values(), lr=ADAMW["lr"], betas=ADAMW["betas"], eps=ADAMW["eps"],
                                  weight_decay=ADAMW["weight_decay"])
    optimizer.step()
    parameters = [{"name": name, "shape": list(value.shape), "grad": numbers(value.grad), "updated": numbers(value)}
                  for name, value in p.items()]
    config = {"batch": BATCH, "length": LENGTH, "width": WIDTH, "heads": HEADS, "layers": LAYERS,
              "vocabulary": VOCABULARY, "block_size": BLOCK_SIZE}
    print(json.dumps({"torch": torch.__version__, "config": config, "adamw": ADAMW, "loss": loss.item(),
                      "parameters": parameters}))


if __name__ == "__main__":
    main()
