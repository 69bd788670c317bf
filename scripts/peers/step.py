#!/usr/bin/python3
"""One whole training step of PyTorch: forward, backward and SGD with momentum 0.9.

  scripts/peers/step.py [--device auto|cuda|cpu] [--json FILE] [--modes MODE,MODE]
                        [--layouts nhwc,nchw] [--threads N]

"eager" is the usual training loop; "graph" captures the whole step into a CUDA graph; "compile"
compiles the network with the loss (torch.compile) and then, on a GPU, captures the step. SGD is the
fused one where this version has it for the device. The batch is on the device already and is not
augmented; preheat's step gathers it, and keeps records. bf16 is autocast. On a GPU, cuDNN chooses
its algorithms by trying them (cudnn.benchmark). If several layouts are measured, the fastest counts.

Figures are the median of 5 rounds: on a GPU of 100 steps each, by the device's events, on a CPU of
about a second each, with as many threads as there are processors and the limit on how long idle ones
spin that preheat has. What has to be compiled comes last, and the file is complete after every row.
A row says if this version or this device does not have its mode. A row that fails is reported on
standard error and in the file, the others still run, and the exit code is 1.
"""

import warnings

from device import Device, parser, sgd, torch
from figures import Figures, Missing, said
from networks import resnet20, small_cnn
from torch.nn import functional as F

PRECISIONS = ("fp32", "tf32", "bf16")
# Where: network, batch, precisions. A batch of 128 is what a CPU has time for.
CASES = {
    "cuda": (("small-cnn", small_cnn, 128, PRECISIONS), ("small-cnn", small_cnn, 512, ("bf16",)),
             ("small-cnn", small_cnn, 1024, PRECISIONS), ("resnet20", resnet20, 128, PRECISIONS)),
    "cpu": (("small-cnn", small_cnn, 128, PRECISIONS), ("resnet20", resnet20, 128, PRECISIONS)),
}
MODES = tuple(f"{kind}-{precision}" for kind in ("graph", "eager", "compile")
              for precision in PRECISIONS)
USUAL_MODES = {"cuda": "graph-fp32,graph-tf32,graph-bf16,compile-bf16", "cpu": "eager-fp32,compile-fp32"}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
STEPS = 100          # of a round on a GPU
ROUND_SECONDS = 1.0  # aimed at on a CPU


def allow_tf32(allowed):
    # Not fp32_precision, the successor: torch.compile still reads these flags and refuses a mix.
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def fastest_sgd(parameters):
    parameters = list(parameters)
    try:
        return sgd(parameters, lr=0.01, fused=True)
    except Missing:
        return sgd(parameters, lr=0.01)


class Step:
    """A training step and its state. All of its tensors keep their addresses."""

    def __init__(self, make, batch, mode, layout, device):
        kind, self.precision = mode.split("-")
        self.device = device
        torch.manual_seed(0)
        self.model = make().to(device=device, memory_format=LAYOUTS[layout]).train()
        self.optimizer = fastest_sgd(self.model.parameters())
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


def captured(step, device):
    """A graph of one step. The capture allocates the gradients; each replay overwrites them."""
    def warm_up():
        for _ in range(5):
            step.with_new_gradients()
        step.optimizer.zero_grad(set_to_none=True)
    return device.captured(warm_up, step)


def modes_on(device):
    return [m for m in MODES if device.on_gpu or not (m.startswith("graph") or m.endswith("tf32"))]


def step_seconds(make, batch, mode, layout, device):
    """The median, the least and the largest."""
    allow_tf32(mode.endswith("tf32"))
    step = Step(make, batch, mode, layout, device.torch)
    in_graph = device.on_gpu and not mode.startswith("eager")
    take_step = captured(step, device).replay if in_graph else step.with_new_gradients
    device.round(take_step, 20 if device.on_gpu else 2)  # warm-up
    steps = STEPS if device.on_gpu else max(3, round(ROUND_SECONDS / device.round(take_step, 2)))
    seconds = device.seconds(take_step, steps)
    if not all(torch.isfinite(p).all() for p in step.model.parameters()):
        raise RuntimeError("the weights are not finite; what was timed is no training")
    return seconds


def fastest_ms(make, batch, mode, layouts, device):
    if mode.startswith("compile") and not hasattr(torch, "compile"):
        raise Missing(f"PyTorch {torch.__version__} has no torch.compile")
    return [1e3 * s for s in min(step_seconds(make, batch, mode, l, device) for l in layouts)]


def listed(text, known, options):
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            options.error(f"there is no '{name}'; there are {', '.join(known)}")
    return names


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--modes", help="of " + ", ".join(MODES) + " (default: " +
                         "; ".join(f"on {d}: {m}" for d, m in USUAL_MODES.items()) + ")")
    options.add_argument("--layouts", default="nhwc", help="of " + ", ".join(LAYOUTS))
    arguments = options.parse_args()
    layouts = listed(arguments.layouts, LAYOUTS, options)
    device = Device(arguments.device, arguments.threads)
    modes = listed(arguments.modes or USUAL_MODES[device.torch.type], modes_on(device), options)
    warnings.filterwarnings("ignore", message=".*TF32.*")
    torch.backends.cudnn.benchmark = True
    print(f"PyTorch {torch.__version__}, {device.text}")
    print(f"{'network':<10} {'batch':>5}  {'mode':<12}  {'ms a step':>9} {'least .. largest':>21}  "
          f"{'images/s':>9}")
    figures = Figures(arguments.json, device=device.text, torch=torch.__version__,
                      modes=modes_on(device))
    rows = [(network, make, batch, mode)
            for network, make, batch, precisions in CASES[device.torch.type] for mode in modes
            if mode.split("-")[1] in precisions]
    for network, make, batch, mode in sorted(rows, key=lambda row: row[3].startswith("compile")):
        reason, ms = figures.measured(f"step.py: {network}, {batch}, {mode}",
                                      lambda: fastest_ms(make, batch, mode, layouts, device))
        device.release()
        median, least, largest = ms or (None, None, None)
        row = {"network": network, "batch": batch, "mode": mode, "ms": median, "least_ms": least,
               "largest_ms": largest, **reason}
        figures.add(row)
        result = (f"{median:>9.3f} {least:>9.3f} .. {largest:>8.3f}  {1e3 * batch / median:>9.0f}"
                  if ms else said(row))
        print(f"{network:<10} {batch:>5}  {mode:<12}  {result}", flush=True)
    return 1 if figures.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
