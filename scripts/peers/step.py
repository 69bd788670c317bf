#!/usr/bin/python3
"""One training step of preheat and of PyTorch on the same CPU, network and batch size, in turns.

  scripts/setup.sh --with-peers && scripts/peers/step.py [--program build/release/preheat]

Both sides use fp32, NHWC (channels_last), batch 128, SGD with momentum, all threads, and the same
limit on how long idle threads spin. PyTorch's data are in memory already and not augmented;
preheat's step includes gathering and normalising its batch, its records and its files. Both sides
are timed in every turn, and figures are medians over the turns. The ratio is taken turn by turn
because the machine may be shared. The share outside the convolutions comes from oneDNN's own timing
of its primitives.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
import torch  # noqa: E402  (reads the environment)
from torch.nn import functional as F  # noqa: E402

from networks import resnet20, small_cnn  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BATCH = 128


class Torch:
    def __init__(self, make):
        self.model = make().to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.x = torch.randn(BATCH, 1, 28, 28).contiguous(memory_format=torch.channels_last)
        self.y = torch.randint(0, 10, (BATCH,))

    def step_ms(self, steps):
        times = []
        for _ in range(steps + 2):
            start = time.perf_counter()
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(self.x), self.y).backward()
            self.optimizer.step()
            times.append(time.perf_counter() - start)
        return 1e3 * statistics.median(times[2:])


def preheat(program, config, steps, environment=None):
    """Runs `steps` updates; returns the summary and the program's output."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "run")
        result = subprocess.run(
            [program, "train", ROOT / "configs" / config, "--device", "cpu", "--quiet",
             "--out", out, "--set", f"train.length={steps} steps", "--set", "data.train_limit=20000",
             "--set", "schedule.warmup.length=0 steps", "--set", "data.augment.flip=false",
             "--set", "data.augment.crop_padding=0"],
            env={**os.environ, **(environment or {})}, capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"{program}: exit code {result.returncode}: {result.stderr.strip()}")
        return json.loads(pathlib.Path(out, "summary.json").read_text()), result.stdout


def share_outside_convolutions(program, config, steps):
    """1 - time in convolutions / time of the steps, over the training steps only."""
    summary, output = preheat(program, config, steps, {"DNNL_VERBOSE": "1"})
    convolutions = 0.0
    for line in output.splitlines():
        fields = line.split(",")
        if line.startswith("onednn_verbose,exec") and fields[3] == "convolution":
            convolutions += float(fields[-1])
    # The evaluation at the end runs 79 batches forward; their convolutions are subtracted by count.
    forward = [float(line.split(",")[-1]) for line in output.splitlines()
               if re.match(r"onednn_verbose,exec,cpu,convolution,[^,]*,forward", line)]
    evaluated = len(forward) * 79 // (79 + steps)
    convolutions -= sum(forward[-evaluated:])
    return 1 - convolutions / (steps * 1e3 * BATCH / summary["images_per_second"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "release" / "preheat")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}")
    print(f"{'network':<10} {'preheat':>10} {'PyTorch':>10} {'ratio':>6} {'turns':>16}  outside convolutions")
    for name, config, make in (("small CNN", "small-cnn.yaml", small_cnn),
                               ("ResNet-20", "resnet20.yaml", resnet20)):
        peer = Torch(make)
        ours, theirs = [], []
        for _ in range(arguments.turns):
            summary, _ = preheat(arguments.program, config, arguments.steps)
            ours.append(1e3 * BATCH / summary["images_per_second"])
            theirs.append(peer.step_ms(arguments.steps))
        ratios = [b / a for a, b in zip(ours, theirs)]
        share = share_outside_convolutions(arguments.program, config, arguments.steps)
        print(f"{name:<10} {statistics.median(ours):>7.1f} ms {statistics.median(theirs):>7.1f} ms "
              f"{statistics.median(ratios):>6.2f} {min(ratios):>8.2f} .. {max(ratios):.2f}  {100 * share:.0f} %")


if __name__ == "__main__":
    main()
