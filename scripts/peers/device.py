"""The device that PyTorch is measured on, and how times are taken there."""

import argparse
import gc
import inspect
import os
import statistics
import sys
import time

# As preheat sets it for itself (src/main.cpp says why). The library reads it while it is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
import torch  # noqa: E402

from figures import Missing  # noqa: E402

ROUNDS = 5


def processor():
    """As src/backend/cpu/cpu_backend.cpp names it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(": ", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "CPU"


class Device:
    """`name` is "cuda", "cpu" or "auto", which takes a GPU if there is one; `threads` are a CPU's."""

    def __init__(self, name, threads):
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and not torch.cuda.is_available():
            raise SystemExit("PyTorch sees no CUDA device; --device cpu measures the processor")
        self.torch, self.on_gpu = torch.device(name), name == "cuda"
        torch.set_num_threads(threads)
        # As `preheat bench` names it, so that it can tell whether both ran on the same device.
        self.text = torch.cuda.get_device_name() if self.on_gpu else f"{processor()}, {threads} threads"

    def round(self, call, calls):
        """Seconds of one of so many calls, back to back as in a training loop."""
        if not self.on_gpu:
            begin = time.perf_counter()
            for _ in range(calls):
                call()
            return (time.perf_counter() - begin) / calls
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls

    def seconds(self, call, calls):
        """The median round's, the least and the largest."""
        times = [self.round(call, calls) for _ in range(ROUNDS)]
        return statistics.median(times), min(times), max(times)

    def captured(self, warm_up, call):
        """A CUDA graph of what `call` enqueues, after `warm_up`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            warm_up()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph

    def release(self):
        """What the last measurement has left."""
        gc.collect()
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()
        if self.on_gpu:
            torch.cuda.empty_cache()


def sgd(parameters, **options):
    """torch.optim.SGD with momentum 0.9. Missing if this version does not know an option, or has no
    fused one for the parameters' device."""
    known = inspect.signature(torch.optim.SGD.__init__).parameters
    for option in options:
        if option not in known:
            raise Missing(f"PyTorch {torch.__version__} has no {option} SGD")
    parameters = list(parameters)
    try:
        return torch.optim.SGD(parameters, momentum=0.9, **options)
    except RuntimeError as error:
        if not options.get("fused") or "fused" not in str(error):
            raise
        device = parameters[0].device.type
        raise Missing(f"PyTorch {torch.__version__} has no fused SGD on {device}") from error


def parser(description):
    """The options that all peers have."""
    all_threads = len(os.sched_getaffinity(0))
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"),
                         help="auto takes a GPU if there is one")
    options.add_argument("--threads", default=all_threads, type=int,
                         help=f"on a CPU (default: all that there are, here {all_threads})")
    options.add_argument("--json", help="where the figures go")
    return options
