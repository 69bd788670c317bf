#!/usr/bin/env python3
"""One whole training step of PyTorch on a GPU: forward, backward and fused SGD with momentum 0.9.

  python3 scripts/peers/gpu_step.py [--json FILE] [--modes MODE,MODE] [--layouts nhwc,nchw]

"eager" is the usual training loop; "graph" captures the whole step into a CUDA graph; "compile"
compiles the network with the loss (torch.compile) and then captures the step. The batch is on the
device already and is not augmented. bf16 is autocast. cuDNN chooses its algorithms by trying them
(cudnn.benchmark). If several layouts are measured, the fastest counts. Times are measured by the
device's events over 100 steps; the figure is the median of 5 rounds. What has to be compiled comes
last, and the file is complete after every row. A row that fails is reported on standard error and in
the file, the others still run, and the exit code is 1. --device cpu is a dry run: it executes every
line that a CPU can, and its times mean nothing.
"""

import argparse
import gc
import statistics
import time
import warnings

import torch
from torch.nn import functional as F

from figures import Figures
from networks import resnet20, small_cnn

NETWORKS = {"small-cnn": (small_cnn, (128, 1024)), "resnet20": (resnet20, (128,))}
MODES = tuple(f"{kind}-{precision}" for kind in ("graph", "eager", "compile")
              for precision in ("fp32", "tf32", "bf16"))
USUAL_MODES = "graph-fp32,graph-bf16,compile-bf16"
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
ROUNDS = 5
STEPS = 100


def allow_tf32(allowed):
    # Not fp32_precision, the successor: torch.compile still reads these flags and refuses a mix.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Step:
    """A training step and its state. All of its tensors keep their addresses."""

    def __init__(self, make, batch, mode, layout, device):
        kind, self.precision = mode.split("-")
        self.device = device
        torch.manual_seed(0)
        self.model = make().to(device=device, memory_format=LAYOUTS[layout]).train()
        fused = {"fused": True} if device.type == "cuda" else {}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, **fused)
        x = torch.randn(batch, 1, 28, 28, device=device)
        self.x = x.contiguous(memory_format=LAYOUTS[layout])
        self.y = torch.randint(0, 10, (batch,), device=device)
        self.loss = torch.compile(self.loss_of) if kind == "compile" else self.loss_of

    def loss_of(self, x, y):
        return F.cross_entropy(self.model(x), y)

    def __call__(self):
        # No cache: casts cached before the capture would be missing from the graph.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False,
                            enabled=self.precision == "bf16"):
            loss = self.loss(self.x, self.y)
        loss.backward()
        self.optimizer.step()

    def with_new_gradients(self):
        self.optimizer.zero_grad(set_to_none=True)
        self()


def captured(step, warmup):
    """A graph of one step. The capture allocates the gradients; each replay overwrites them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            step.with_new_gradients()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    step.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def step_ms(take_step):
    for _ in range(20):
        take_step()
    torch.cuda.synchronize()
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(STEPS):
            take_step()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / STEPS)
    return statistics.median(times)


def time_on_gpu(make, batch, mode, layout, device):
    allow_tf32(mode.endswith("tf32"))
    step = Step(make, batch, mode, layout, device)
    if mode.startswith("eager"):
        ms = step_ms(step.with_new_gradients)
    else:
        ms = step_ms(captured(step, warmup=5).replay)
    if not all(torch.isfinite(p).all() for p in step.model.parameters()):
        raise RuntimeError("the weights are not finite; what was timed is no training")
    return ms


def dry_on_cpu(make, batch, mode, layout, device):
    step = Step(make, min(batch, 8), mode, layout, device)
    begin = time.perf_counter()
    for _ in range(2):
        step.with_new_gradients()
    return 1e3 * (time.perf_counter() - begin) / 2


def fastest_ms(make, batch, mode, arguments):
    measure = time_on_gpu if arguments.device.type == "cuda" else dry_on_cpu
    return min(measure(make, batch, mode, l, arguments.device) for l in arguments.layouts)


def released():
    gc.collect()
    if torch.cuda.is_available():
        torch.compiler.reset()
        torch.cuda.empty_cache()


def listed(text, known, parser):
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            parser.error(f"there is no '{name}'; there are {', '.join(known)}")
    return names


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--modes", default=USUAL_MODES, help="of " + ", ".join(MODES))
    parser.add_argument("--layouts", default="nhwc", help="of " + ", ".join(LAYOUTS))
    arguments = parser.parse_args()
    arguments.modes = listed(arguments.modes, MODES, parser)
    arguments.layouts = listed(arguments.layouts, LAYOUTS, parser)
    return arguments


def main():
    arguments = parsed()
    on_gpu = arguments.device.type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise SystemExit("gpu_step.py: no CUDA device; --device cpu is a dry run")
    warnings.filterwarnings("ignore", message=".*TF32.*")
    torch.backends.cudnn.benchmark = True
    device = torch.cuda.get_device_name() if on_gpu else "CPU, a dry run: these are no figures"
    print(f"PyTorch {torch.__version__}, {device}")
    print(f"{'network':<10} {'batch':>5}  {'mode':<12}  {'ms a step':>9}  {'images/s':>9}")
    figures = Figures(arguments.json, device=device, torch=torch.__version__)
    rows = [(network, make, batch, mode) for network, (make, batches) in NETWORKS.items()
            for batch in batches for mode in arguments.modes]
    for network, make, batch, mode in sorted(rows, key=lambda row: row[3].startswith("compile")):
        error, ms = figures.measured(f"gpu_step.py: {network}, {batch}, {mode}",
                                     lambda: fastest_ms(make, batch, mode, arguments))
        released()
        figures.add({"network": network, "batch": batch, "mode": mode, "ms": ms, **error})
        result = f"{ms:>9.3f}  {1e3 * batch / ms:>9.0f}" if ms else f"{'failed':>9}"
        print(f"{network:<10} {batch:>5}  {mode:<12}  {result}", flush=True)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
