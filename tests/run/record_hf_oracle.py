#!/usr/bin/env python3
"""Records a tiny random GPT-2 of transformers with its logits: hf_oracle.json beside this script.

Needs torch and transformers; the versions are in the file. The tensors are those of the model.safetensors that
save_pretrained writes, under its names.
"""
import json
import os
import tempfile

import torch
import transformers
from safetensors.torch import load_file


def main():
    torch.manual_seed(3)
    config = transformers.GPT2Config(vocab_size=13, n_positions=10, n_embd=8, n_layer=2, n_head=2,
                                     bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases away from 1 and 0
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokens = [(5 * i + 2) % 13 for i in range(10)]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = load_file(os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "config.json")) as file:
            written = json.load(file)
    oracle = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "config": written,
        "tensors": {name: {"shape": list(t.shape), "values": t.flatten().tolist()} for name, t in tensors.items()},
        "tokens": tokens,
        "logits": logits.tolist(),
    }
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hf_oracle.json")
    with open(path, "w") as file:
        json.dump(oracle, file)
        file.write("\n")


if __name__ == "__main__":
    main()
