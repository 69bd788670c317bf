#!/usr/bin/python3
"""The update alone: torch.optim.SGD over the lists of tensors of `preheat bench update`.

  scripts/peers/update.py [--device auto|cuda|cpu] [--json FILE] [--quick] [--threads N]

The lists are those of networks, one tensor of growing size, and 2^20 parameters in growing numbers of
tensors; on a CPU without the sizes that the bench leaves out there. Momentum 0.9, weight decay 5e-4,
fp32. On a GPU each mode is also measured in a graph of several steps, as there. Figures are the median
of 5 rounds, timed by the device's events, or on a CPU by its clock, with as many threads as there are
processors. A step moves 20 bytes a parameter: it reads weight, gradient and velocity, and writes
weight and velocity. The ceiling is y.copy_(x) of 1 GiB (64 MiB on a CPU) in the same run, read and
write counted. Lists that fit into a cache can exceed it. The file is complete after every row. A row
says if this version does not have its mode on this device. A row that fails is reported on standard
error and in the file, the others still run, and the exit code is 1.
"""

import math

from device import Device, parser, sgd, torch
from figures import Figures, said
from networks import resnet20, resnet50_shapes, small_cnn

BYTES_PER_PARAMETER = 20
CEILING_BYTES = {"cuda": 1 << 30, "cpu": 1 << 26}
MOST_PARAMETERS = {"cuda": 1 << 29, "cpu": 1 << 25}  # as in src/commands/bench_update.cpp
ROUND_SECONDS = 0.03  # aimed at for a round
LOOPS = {"for-loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
IN_GRAPH = " in a graph"


def modes_on(device):
    return [*LOOPS, *(loop + IN_GRAPH for loop in LOOPS)] if device.on_gpu else [*LOOPS]


def shapes_of(module):
    return [tuple(p.shape) for p in module.parameters()]


def split(parameters, tensors):
    """Into tensors of sizes as equal as possible."""
    ends = [parameters * i // tensors for i in range(tensors + 1)]
    return [(end - begin,) for begin, end in zip(ends, ends[1:])]


def parameters_in(shapes):
    return sum(math.prod(shape) for shape in shapes)


def tensor_lists(quick, most):
    lists = {"small-cnn": shapes_of(small_cnn()), "resnet20": shapes_of(resnet20()),
             "resnet50": resnet50_shapes()}
    for bits in (16, 21, 26) if quick else (16, 19, 22, 25, 28, 29):
        lists[f"2^{bits}"] = [(1 << bits,)]
    for tensors in (1, 1000) if quick else (1, 10, 100, 1000):
        lists[f"2^20 in {tensors}"] = split(1 << 20, tensors)
    return {name: shapes for name, shapes in lists.items() if parameters_in(shapes) <= most}


def timed(call, device):
    """Seconds of a call: the median, the least and the largest."""
    device.round(call, 3)
    calls = min(5000, max(10 if device.on_gpu else 3,
                          round(ROUND_SECONDS / max(device.round(call, 5), 1e-6))))
    return device.seconds(call, calls)


def steps_in_graph(shapes, mode):
    """As in src/backend/cuda/update_bench.cpp: 4 to 64, and fewer if a step is many launches."""
    steps = min(64, max(4, (1 << 27) // parameters_in(shapes)))
    # PyTorch's rule is four operations unless fused; a launch takes one tensor, or up to 48 of a list.
    operations = 1 if mode.startswith("fused") else 4
    tensors_in_launch = 1 if mode.startswith("for-loop") else 48
    launches = operations * math.ceil(len(shapes) / tensors_in_launch)
    return max(1, steps // max(1, launches // 16))


def update_us(shapes, mode, device):
    """The median, the least and the largest."""
    parameters = []
    for shape in shapes:
        p = torch.nn.Parameter(torch.randn(shape, device=device.torch))
        p.grad = torch.randn(shape, device=device.torch)
        parameters.append(p)
    optimizer = sgd(parameters, lr=1e-4, weight_decay=5e-4, nesterov=False,
                    **LOOPS[mode.removesuffix(IN_GRAPH)])
    call, steps = optimizer.step, 1
    if mode.endswith(IN_GRAPH):
        steps = steps_in_graph(shapes, mode)

        def several(count):
            for _ in range(count):
                optimizer.step()
        # Warmed up first, which allocates the velocities.
        graph = device.captured(lambda: several(3), lambda: several(steps))
        call = graph.replay
    return [1e6 * s / steps for s in timed(call, device)]


def copy_ceiling(device, size):
    """GB/s."""
    count = size // 4
    x, y = torch.randn(count, device=device.torch), torch.empty(count, device=device.torch)
    return 2 * 4 * count / timed(lambda: y.copy_(x), device)[0] / 1e9


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="fewer lists, as of bench update --quick")
    arguments = options.parse_args()
    device = Device(arguments.device, arguments.threads)
    print(f"PyTorch {torch.__version__}, {device.text}")
    size = CEILING_BYTES[device.torch.type]
    ceiling = copy_ceiling(device, size)
    device.release()
    print(f"copy of {size >> 20} MiB: {ceiling:.1f} GB/s\n")
    print(f"{'tensors':<12} {'count':>5} {'parameters':>11}  {'mode':<19} {'us a step':>9} "
          f"{'least .. largest':>21} {'GB/s':>6} {'of copy':>7}")
    modes = modes_on(device)
    figures = Figures(arguments.json, device=device.text, torch=torch.__version__, modes=modes,
                      copy_gb_per_s=ceiling)
    for name, shapes in tensor_lists(arguments.quick, MOST_PARAMETERS[device.torch.type]).items():
        parameters = parameters_in(shapes)
        for mode in modes:
            reason, us = figures.measured(f"update.py: {name}, {mode}",
                                          lambda: update_us(shapes, mode, device))
            device.release()
            median, least, largest = us or (None, None, None)
            rate = BYTES_PER_PARAMETER * parameters / median / 1e3 if us else None
            row = {"network": name, "tensors": len(shapes), "parameters": parameters, "mode": mode,
                   "us": median, "least_us": least, "largest_us": largest, "gb_per_s": rate, **reason}
            figures.add(row)
            result = (f"{median:>9.1f} {least:>9.1f} .. {largest:>8.1f} {rate:>6.1f} "
                      f"{100 * rate / ceiling:>6.0f}%" if us else said(row))
            print(f"{name:<12} {len(shapes):>5} {parameters:>11}  {mode:<19} {result}", flush=True)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
