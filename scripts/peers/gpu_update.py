#!/usr/bin/env python3
"""The update alone: torch.optim.SGD on a GPU, over the lists of tensors of `preheat bench update`.

  python3 scripts/peers/gpu_update.py [--json FILE] [--quick]

The lists are those of networks, one tensor of growing size, and 2^20 parameters in growing numbers of
tensors. Momentum 0.9, weight decay 5e-4, fp32. A graph has several steps, as there. Times are measured
by the device's events; the figure is the median of 5 turns. A step moves 20 bytes a parameter: it reads
weight, gradient and velocity, and writes weight and velocity. The ceiling is y.copy_(x) of 1 GiB in the
same run, read and write counted. Lists that fit into the L2 cache can exceed it. The file is complete
after every row. A row that fails is reported on standard error and in the file, the others still run,
and the exit code is 1. --device cpu is a dry run: it executes every line that a CPU can, and its times
mean nothing.
"""

import argparse
import gc
import math
import statistics
import time

import torch

from figures import Figures
from networks import resnet20, resnet50_shapes, small_cnn

BYTES_PER_PARAMETER = 20
CEILING_BYTES = 1 << 30
REPETITIONS = 5
TURN_US = 30_000  # aimed at for a turn
MODES = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "for-loop in a graph": {"foreach": False},
    "foreach in a graph": {"foreach": True},
    "fused in a graph": {"fused": True},
}


def shapes_of(module):
    return [tuple(p.shape) for p in module.parameters()]


def split(parameters, tensors):
    """Into tensors of sizes as equal as possible."""
    ends = [parameters * i // tensors for i in range(tensors + 1)]
    return [(end - begin,) for begin, end in zip(ends, ends[1:])]


def tensor_lists(quick):
    lists = {"small-cnn": shapes_of(small_cnn()), "resnet20": shapes_of(resnet20()),
             "resnet50": resnet50_shapes()}
    for bits in (16, 21, 26) if quick else (16, 19, 22, 25, 28, 29):
        lists[f"2^{bits}"] = [(1 << bits,)]
    for tensors in (1, 1000) if quick else (1, 10, 100, 1000):
        lists[f"2^20 in {tensors}"] = split(1 << 20, tensors)
    return lists


def parameters_in(shapes):
    return sum(math.prod(shape) for shape in shapes)


def timed_us(call, device):
    """The time of one call, with calls back to back as in a training loop."""
    on_gpu = device.type == "cuda"

    def turn(calls):
        if not on_gpu:
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            return 1e6 * (time.perf_counter() - begin) / calls
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return 1e3 * begin.elapsed_time(end) / calls

    turn(3)
    calls = min(5000, max(10, round(TURN_US / max(turn(5), 1)))) if on_gpu else 2
    return statistics.median(turn(calls) for _ in range(REPETITIONS))


def steps_in_graph(shapes, mode):
    """As in src/backend/cuda/update_bench.cpp: 4 to 64, and fewer if a step is many launches."""
    steps = min(64, max(4, (1 << 27) // parameters_in(shapes)))
    # PyTorch's rule is four operations unless fused; a launch takes one tensor, or up to 48 of a list.
    operations = 1 if mode.startswith("fused") else 4
    tensors_in_launch = 1 if mode.startswith("for-loop") else 48
    launches = operations * math.ceil(len(shapes) / tensors_in_launch)
    return max(1, steps // max(1, launches // 16))


def captured(call, steps):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # the first allocates the velocities
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(steps):
            call()
    return graph


def update_us(shapes, mode, device):
    parameters = []
    for shape in shapes:
        p = torch.nn.Parameter(torch.randn(shape, device=device))
        p.grad = torch.randn(shape, device=device)
        parameters.append(p)
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4,
                                nesterov=False, **MODES[mode])
    if mode.endswith("graph") and device.type == "cuda":
        steps = steps_in_graph(shapes, mode)
        graph = captured(optimizer.step, steps)
        us = timed_us(graph.replay, device) / steps
        del graph
    else:
        us = timed_us(optimizer.step, device)
    del parameters, optimizer
    return us


def copy_ceiling(device):
    count = (CEILING_BYTES if device.type == "cuda" else 1 << 20) // 4
    x, y = torch.randn(count, device=device), torch.empty(count, device=device)
    return 2 * 4 * count / timed_us(lambda: y.copy_(x), device) / 1e3


def released():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="fewer lists, as of bench update --quick")
    arguments = parser.parse_args()
    on_gpu = arguments.device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("gpu_update.py: no CUDA device; --device cpu is a dry run")
    device = torch.cuda.get_device_name() if on_gpu else "CPU, a dry run: these are no figures"
    print(f"PyTorch {torch.__version__}, {device}")
    ceiling = copy_ceiling(arguments.device)
    released()
    print(f"copy of {CEILING_BYTES >> 20} MiB: {ceiling:.0f} GB/s\n")
    print(f"{'tensors':<12} {'count':>5} {'parameters':>11}  {'mode':<19} {'us a step':>9} "
          f"{'GB/s':>6} {'of copy':>7}")
    figures = Figures(arguments.json, device=device, torch=torch.__version__, copy_gb_per_s=ceiling)
    for name, shapes in tensor_lists(arguments.quick).items():
        parameters = parameters_in(shapes)
        for mode, options in MODES.items():
            if options.get("fused") and not on_gpu:
                continue
            error, us = figures.measured(f"gpu_update.py: {name}, {mode}",
                                         lambda: update_us(shapes, mode, arguments.device))
            released()
            rate = BYTES_PER_PARAMETER * parameters / us / 1e3 if us else None
            figures.add({"network": name, "tensors": len(shapes), "parameters": parameters,
                         "mode": mode, "us": us, "gb_per_s": rate, **error})
            result = (f"{us:>9.1f} {rate:>6.0f} {100 * rate / ceiling:>6.0f}%" if us
                      else f"{'failed':>9}")
            print(f"{name:<12} {len(shapes):>5} {parameters:>11}  {mode:<19} {result}", flush=True)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
