"""Training steps of a GPT-2 in PyTorch, as compare.py calls it: prints {"samples": [seconds], ...} as one line of JSON.

The model is the one that `lockstep bench step` trains: learned positions, pre-layer-norm blocks, tanh-GELU, a head that
shares its weights with the embedding, AdamW. What PyTorch has for speed is used: scaled_dot_product_attention and
AdamW(fused=True); --compiled adds torch.compile.
"""
import argparse
import json
import resource
import time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.fc_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2)
                   for part in self.qkv(self.ln_1(x)).split(width, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.fc_proj(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, classes, layers, heads, width, length):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(classes, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1))


def main():
    parser = argparse.ArgumentParser()
    for name in ("classes", "layers", "heads", "width", "length", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    model = Gpt(args.classes, args.layers, args.heads, args.width, args.length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    loss_of = torch.compile(model) if args.compiled else model
    tokens = torch.randint(0, args.classes, (args.batch, args.length))
    targets = torch.randint(0, args.classes, (args.batch, args.length))

    def step():
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
            loss = loss_of(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Clipping by the global norm, as the job does.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item(), time.perf_counter() - begin

    first, _ = step()
    step()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    samples, end = [], time.monotonic() + args.seconds
    while len(samples) < args.samples and (time.monotonic() < end or len(samples) < 2):
        loss, seconds = step()
        samples.append(seconds)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(json.dumps({"samples": samples, "loss": [first, loss], "faults": faults / len(samples),
                      "parameters": sum(p.numel() for p in model.parameters()), "version": torch.__version__}))


if __name__ == "__main__":
    main()
