"""AdamW of PyTorch or DeepSpeed's CPUAdam over --elements parameters, as compare.py calls it: one line of JSON.

The parameters are cut into tensors of --tensor elements, as a model's are: 589,824 is a matrix of 768 x 768.
"""
import argparse
import json
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--which", choices=["fused", "foreach", "deepspeed"], required=True)
    parser.add_argument("--elements", type=int, required=True)
    parser.add_argument("--tensor", type=int, default=589824)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--samples", type=int, default=10)
    args = parser.parse_args()

    import torch
    torch.set_num_threads(args.threads)
    sizes = [args.tensor] * (args.elements // args.tensor)
    if args.elements % args.tensor:
        sizes.append(args.elements % args.tensor)
    parameters = [torch.nn.Parameter(torch.full((size,), 0.02)) for size in sizes]
    for p in parameters:
        p.grad = torch.full_like(p, 1e-3)
    options = dict(lr=1e-6, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    version = "torch " + torch.__version__
    if args.which == "deepspeed":
        import deepspeed
        from deepspeed.ops.adam import DeepSpeedCPUAdam
        optimizer = DeepSpeedCPUAdam(parameters, adamw_mode=True, **options)
        version = f"deepspeed {deepspeed.__version__}, {version}"
    else:
        optimizer = torch.optim.AdamW(parameters, **options, **{args.which: True})
    optimizer.step()
    samples = []
    for _ in range(args.samples):
        begin = time.perf_counter()
        optimizer.step()
        samples.append(time.perf_counter() - begin)
    print(json.dumps({"samples": samples, "version": version}))


if __name__ == "__main__":
    main()
