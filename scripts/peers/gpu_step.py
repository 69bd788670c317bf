#!/usr/bin/env python3
"""One whole training step of PyTorch on a GPU: forward, backward and fused SGD with momentum 0.9.

  python3 scripts/peers/gpu_step.py [--json FILE] [--modes MODE,MODE] [--quick]

The whole step is captured in a CUDA graph; "compile" is torch.compile and then captured. The batch
is on the device already and not augmented. bf16 is autocast and fused as PyTorch does it. cuDNN
picks its algorithms by trying them (cudnn.benchmark), and each graph is timed with both memory
layouts, of which the faster counts; compile takes channels_last. Times are the device's own, of
at least 100 replays, the median of 5. --device cpu runs every line of it that a CPU can, to no figures.
"""

import argparse
import gc
import json
import statistics
import time
import warnings

import torch
from torch.nn import functional as F

from networks import resnet20, small_cnn

NETWORKS = {"small-cnn": (small_cnn, (128, 1024)), "resnet20": (resnet20, (128,))}
MODES = ("graph fp32", "graph tf32", "graph bf16", "compile bf16")
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
REPETITIONS = 5


def allow_tf32(allowed):
    # Not by fp32_precision, its successor: torch.compile still asks for these, and refuses a mix.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


class Step:
    """The state of a training step, and the step; all of its tensors stay where they are."""

    def __init__(self, make, batch, mode, layout, device):
        kind, self.precision = mode.split()
        self.device = device
        torch.manual_seed(0)
        self.model = make().to(device=device, memory_format=LAYOUTS[layout]).train()
        fused = {"fused": True} if device.type == "cuda" else {}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, **fused)
        x = torch.randn(batch, 1, 28, 28, device=device)
        self.x = x.contiguous(memory_format=LAYOUTS[layout])
        self.y = torch.randint(0, 10, (batch,), device=device)
        self.loss = torch.compile(self.forward) if kind == "compile" else self.forward

    def forward(self, x, y):
        return F.cross_entropy(self.model(x), y)

    def __call__(self):
        # Without the cache: casts kept from outside a capture would be missing from the graph.
        with torch.autocast(self.device.type, dtype=torch.bfloat16, cache_enabled=False,
                            enabled=self.precision == "bf16"):
            loss = self.loss(self.x, self.y)
        loss.backward()
        self.optimizer.step()


def captured(step, warmup):
    """A graph of one step. Gradients are made during the capture, and overwritten by each replay."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            step.optimizer.zero_grad(set_to_none=True)
            step()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    step.optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def replay_ms(graph, replays):
    for _ in range(20):
        graph.replay()
    torch.cuda.synchronize()
    times = []
    for _ in range(REPETITIONS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / replays)
    return statistics.median(times)


def time_on_gpu(make, batch, mode, layout, arguments):
    allow_tf32(mode.endswith("tf32"))
    step = Step(make, batch, mode, layout, arguments.device)
    graph = captured(step, warmup=5)
    ms = replay_ms(graph, max(100, arguments.replays))
    if not all(torch.isfinite(p).all() for p in step.model.parameters()):
        raise SystemExit(f"{mode}: the weights are not finite; what was timed is no training")
    del graph, step
    gc.collect()
    torch.cuda.empty_cache()
    return ms


def dry_on_cpu(make, batch, mode, layout, arguments):
    step = Step(make, min(batch, 8), mode, layout, arguments.device)
    begin = time.perf_counter()
    for _ in range(2):
        step.optimizer.zero_grad(set_to_none=True)
        step()
    return 1e3 * (time.perf_counter() - begin) / 2


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--modes", default=",".join(MODES), help="of " + ", ".join(MODES))
    parser.add_argument("--quick", action="store_true", help="without compile, which takes minutes")
    parser.add_argument("--replays", type=int, default=100, help="in each of 5 turns, at least 100")
    arguments = parser.parse_args()
    arguments.modes = [mode.strip() for mode in arguments.modes.split(",")]
    unknown = [mode for mode in arguments.modes if mode not in MODES]
    if unknown:
        parser.error(f"there is no mode '{unknown[0]}'; there are {', '.join(MODES)}")
    if arguments.quick or arguments.device.type == "cpu":
        arguments.modes = [mode for mode in arguments.modes if not mode.startswith("compile")]
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
    print(f"{'network':<10} {'batch':>5}  {'mode':<12}  {'ms a step':>9}  {'images/s':>9}  layout")
    rows = []
    for network, (make, batches) in NETWORKS.items():
        for batch in batches:
            for mode in arguments.modes:
                layouts = ["nhwc"] if mode.startswith("compile") else list(LAYOUTS)
                measure = time_on_gpu if on_gpu else dry_on_cpu
                ms, layout = min((measure(make, batch, mode, l, arguments), l) for l in layouts)
                rows.append({"network": network, "batch": batch, "mode": mode, "ms": ms,
                             "layout": layout})
                print(f"{network:<10} {batch:>5}  {mode:<12}  {ms:>9.3f}  {1e3 * batch / ms:>9.0f}"
                      f"  {layout}", flush=True)
                if mode.startswith("compile"):
                    torch.compiler.reset()
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"device": device, "torch": torch.__version__, "rows": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
