"""Sums of fp32 over 2 processes of this host by PyTorch's gloo backend, as compare.py calls it: one line of JSON."""
import argparse
import json
import os
import tempfile
import time


def work(rank, args, store):
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    if rank < (os.cpu_count() or 1):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    data = torch.zeros(args.bytes // 4)
    samples = []
    for i in range(args.samples + 2):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(data)
        if i >= 2:
            samples.append(time.perf_counter() - begin)
    slowest = torch.tensor(samples)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    if rank == 0:
        print(json.dumps({"samples": slowest.tolist(), "version": "torch " + torch.__version__}), flush=True)
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--samples", type=int, default=10)
    args = parser.parse_args()
    import torch.multiprocessing as mp
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (args, os.path.join(folder, "store")), nprocs=2)


if __name__ == "__main__":
    main()
