#!/usr/bin/python3
"""What other libraries' learning-rate schedules return, as JSON on standard output.

  scripts/peers/schedules.py [--merge FILE] [--file LIBRARY VERSION PATH]... > rates.json

The case is small: base rate B, W warmup updates, T updates in all, final rate E. lr[u] is the rate
that the optimizer had in its update u (0-based). Each library is driven the way its own trainer or
manual does it. A library that is not installed is reported on standard error and left out.

Rows come from these pip packages:
  torch/ torch; hf/ transformers; optax/ optax with jax; timm/ timm; keras/ keras; mmengine/ mmengine;
  pytorch_warmup/ pytorch-warmup; paddle/ paddlepaddle; composer/ mosaicml; ildoonet/ warmup-scheduler;
  detectron2/ fvcore, and detectron2 or its solver/lr_scheduler.py (--file detectron2 ...);
  katsura/ no package: cosine_annealing_warmup/scheduler.py (--file katsura ...).
Only the schedule modules of timm, transformers, composer and detectron2 are loaded, so `pip install
--no-deps` is enough for these.

tests/schedule/recorded_rates.json was made on a machine with torch 1.13, with both --file options
and with --merge on a recording from torch 2.11. --merge keeps an existing row if another version of
its library made it, or if the new one agrees to rounding. A new row whose library has another
version than the library's old rows gets an entry of its own in "versions".
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import sys
import types
import warnings
from unittest import mock

os.environ.update(KERAS_BACKEND="jax", JAX_PLATFORMS="cpu", JAX_ENABLE_X64="1")
warnings.simplefilter("ignore")

B, W, T, E = 0.1, 5, 20, 0.001
NOTE = ("lr[u] is the learning rate that optimizer update u (0-based) used, as the named library "
        "returned it for base_lr B, warmup W updates, T updates in all, final lr E")
PACKAGES = {"hf": "transformers", "pytorch_warmup": "pytorch-warmup", "paddle": "paddlepaddle",
            "composer": "mosaicml", "ildoonet": "warmup-scheduler"}
FILES = {}  # of --file: library -> (version, path)


def bare(name):
    """Registers a package without running its __init__."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"no module {name}")
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = list(spec.submodule_search_locations)
    return sys.modules[name]


def from_file(library):
    spec = importlib.util.spec_from_file_location(library + "_file", FILES[library][1])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sgd(rate=B):
    import torch
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def drive(make, updates=T, optimizer=None):
    """make(optimizer) returns one or several schedulers; all are stepped after each update."""
    optimizer = optimizer or sgd()
    schedulers = make(optimizer)
    if not isinstance(schedulers, (list, tuple)):
        schedulers = [schedulers]
    rates = []
    for update in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if update + 1 < updates:
            for scheduler in schedulers:
                scheduler.step()
    return rates


def torch_rows():
    from torch.optim import lr_scheduler as s

    def linear_cosine(o):
        return s.SequentialLR(o, [s.LinearLR(o, start_factor=1 / 3, total_iters=W),
                                  s.CosineAnnealingLR(o, T - W, eta_min=E)], milestones=[W])

    def constant_multistep(o):
        return s.SequentialLR(o, [s.ConstantLR(o, factor=0.1, total_iters=W),
                                  s.MultiStepLR(o, [5, 10], gamma=0.1)], milestones=[W])

    def onecycle(**options):
        return lambda o: s.OneCycleLR(o, max_lr=B, total_steps=T, **options)

    def cyclic(mode):
        return lambda o: s.CyclicLR(o, base_lr=E, max_lr=B, step_size_up=4, mode=mode, cycle_momentum=False)

    def warm_restarts(o):
        return s.CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2, eta_min=E)

    return {
        "linear_then_cosine": drive(linear_cosine),
        "constant_then_multistep": drive(constant_multistep),
        "onecycle": drive(onecycle(pct_start=0.25)),
        "onecycle_linear": drive(onecycle(anneal_strategy="linear")),
        "onecycle_three_phase": drive(onecycle(pct_start=0.25, three_phase=True)),
        "cosine_warm_restarts": drive(warm_restarts),
        "cosine_warm_restarts_30": drive(warm_restarts, updates=30),
        "cyclic_triangular": drive(cyclic("triangular")),
        "cyclic_triangular2": drive(cyclic("triangular2")),
        "polynomial": drive(lambda o: s.PolynomialLR(o, total_iters=T, power=2)),
        "polynomial_p1": drive(lambda o: s.PolynomialLR(o, total_iters=15, power=1)),
        "exponential": drive(lambda o: s.ExponentialLR(o, gamma=0.97)),
        "step": drive(lambda o: s.StepLR(o, step_size=7, gamma=0.5)),
        "chained_constant_exponential": drive(lambda o: s.ChainedScheduler(
            [s.ConstantLR(o, factor=0.1, total_iters=W), s.ExponentialLR(o, gamma=0.9)])),
    }


def hf_rows():
    bare("transformers")
    for sibling in ("trainer_pt_utils", "trainer_utils", "utils"):
        sys.modules[f"transformers.{sibling}"] = mock.MagicMock()
    import transformers.optimization as s

    def restarts(cycles):
        return drive(lambda o: s.get_cosine_with_hard_restarts_schedule_with_warmup(o, W, T, num_cycles=cycles))

    def min_lr_from_one(**options):
        return drive(lambda o: s.get_cosine_with_min_lr_schedule_with_warmup_lr_rate(o, W, T, min_lr=E, **options))

    def wsd(decay, warmup="linear"):
        return drive(lambda o: s.get_wsd_schedule(
            o, W, num_decay_steps=5, num_training_steps=T, warmup_type=warmup, decay_type=decay,
            min_lr_ratio=E / B))

    rows = {
        "constant": drive(s.get_constant_schedule),
        "constant_with_warmup": drive(lambda o: s.get_constant_schedule_with_warmup(o, W)),
        "linear": drive(lambda o: s.get_linear_schedule_with_warmup(o, W, T)),
        "cosine": drive(lambda o: s.get_cosine_schedule_with_warmup(o, W, T)),
        "cosine_restarts2": restarts(2),
        "cosine_restarts3": restarts(3),
        "cosine_restarts4": restarts(4),
        "polynomial": drive(lambda o: s.get_polynomial_decay_schedule_with_warmup(o, W, T)),
        "polynomial_p2": drive(lambda o: s.get_polynomial_decay_schedule_with_warmup(o, W, T, lr_end=E, power=2)),
        "inverse_sqrt": drive(lambda o: s.get_inverse_sqrt_schedule(o, W)),
        "cosine_min_lr": drive(lambda o: s.get_cosine_with_min_lr_schedule_with_warmup(o, W, T, min_lr=E)),
        "cosine_warmup_min_lr": min_lr_from_one(),
        "cosine_warmup_min_lr_start": min_lr_from_one(warmup_lr_rate=0.1),
    }
    for decay in ("linear", "cosine", "1-sqrt"):
        rows[f"wsd_{decay}"] = wsd(decay)
        for warmup in ("cosine", "1-sqrt"):
            rows[f"wsd_{decay}_warmup_{warmup}"] = wsd(decay, warmup)
    return rows


def timm_rows():
    bare("timm")
    import timm.scheduler as s

    def updates(kind, **options):
        optimizer = sgd()
        scheduler = kind(optimizer, t_in_epochs=False, warmup_t=W, warmup_lr_init=1e-5, **options)
        rates = []
        for update in range(T):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step_update(num_updates=update + 1)
        return rates

    def epochs(t_initial):
        optimizer = sgd()
        scheduler = s.CosineLRScheduler(optimizer, t_initial=t_initial, lr_min=E, warmup_t=1,
                                        warmup_lr_init=1e-5, warmup_prefix=True)
        rates = []
        for epoch in range(4):
            for update in range(5):
                rates.append(optimizer.param_groups[0]["lr"])
                scheduler.step_update(num_updates=5 * epoch + update + 1)
            scheduler.step(epoch + 1)
        return rates

    return {
        "cosine_noprefix": updates(s.CosineLRScheduler, t_initial=T, lr_min=E),
        "cosine_prefix": updates(s.CosineLRScheduler, t_initial=T - W, lr_min=E, warmup_prefix=True),
        "cosine_cycles": updates(s.CosineLRScheduler, t_initial=3, lr_min=E, cycle_mul=2, cycle_decay=0.5,
                                 cycle_limit=100, warmup_prefix=True),
        "cosine_epochs": epochs(3),
        "cosine_epochs_t4": epochs(4),
        "tanh_noprefix": updates(s.TanhLRScheduler, t_initial=T, lr_min=E),
        "tanh_prefix": updates(s.TanhLRScheduler, t_initial=T - W, lr_min=E, warmup_prefix=True),
        "poly_p2_prefix": updates(s.PolyLRScheduler, t_initial=T - W, power=2, lr_min=E, warmup_prefix=True),
        "step_prefix": updates(s.StepLRScheduler, decay_t=5, decay_rate=0.1),
        "multistep_prefix": updates(s.MultiStepLRScheduler, decay_t=[10, 15], decay_rate=0.1),
        "multistep_noprefix": updates(s.MultiStepLRScheduler, decay_t=[10, 15], decay_rate=0.1,
                                      warmup_prefix=False),
    }


def optax_rows():
    """The schedule at the optimizer's count, in float64; an int32 array as the count would give float32."""
    import optax as o
    return {name: [float(schedule(update)) for update in range(T)] for name, schedule in {
        "warmup_cosine": o.warmup_cosine_decay_schedule(0.0, B, W, T, E),
        "warmup_cosine_init": o.warmup_cosine_decay_schedule(E, B, W, T, E),
        "warmup_exponential": o.warmup_exponential_decay_schedule(0.0, B, W, 5, 0.5),
        "warmup_constant": o.warmup_constant_schedule(0.0, B, W),
        "linear_onecycle": o.linear_onecycle_schedule(T, B),
        "cosine_onecycle": o.cosine_onecycle_schedule(T, B),
        "join_linear_poly3": o.join_schedules(
            [o.linear_schedule(0.0, B, W), o.polynomial_schedule(B, E, 3, T - W)], [W]),
        "sgdr": o.sgdr_schedule([
            dict(init_value=0.0, peak_value=B, warmup_steps=2, decay_steps=8, end_value=E),
            dict(init_value=E, peak_value=B / 2, warmup_steps=3, decay_steps=12, end_value=E)]),
        "exponential": o.exponential_decay(B, 4, 0.5, transition_begin=W, end_value=0.02),
        "exponential_staircase": o.exponential_decay(B, 4, 0.5, transition_begin=W, staircase=True,
                                                     end_value=0.02),
        "piecewise_constant": o.piecewise_constant_schedule(B, {10: 0.1, 15: 0.1}),
        "polynomial": o.polynomial_schedule(B, E, 2, 10, transition_begin=W),
    }.items()}


def keras_rows():
    """In float64 as far as Keras allows: it computes cosines and powers in float32."""
    import keras
    keras.config.set_floatx("float64")
    s = keras.optimizers.schedules

    def applied(schedule):
        variable = keras.Variable(0.0)
        optimizer = keras.optimizers.SGD(schedule)
        rates = []
        for _ in range(T):
            variable.assign(0.0)
            optimizer.apply([keras.ops.ones(())], [variable])
            rates.append(0.0 - float(variable.numpy()))
        return rates

    return {name: applied(schedule) for name, schedule in {
        "cosine_warmup": s.CosineDecay(0.0, T - W, alpha=E / B, warmup_target=B, warmup_steps=W),
        "cosine_restarts": s.CosineDecayRestarts(B, 3, t_mul=2.0, m_mul=0.5, alpha=E / B),
        "cosine_restarts_alpha0": s.CosineDecayRestarts(B, 3, t_mul=2.0, m_mul=0.5, alpha=0.0),
        "exponential": s.ExponentialDecay(B, 5, 0.5),
        "exponential_staircase": s.ExponentialDecay(B, 5, 0.5, staircase=True),
        "inverse_time": s.InverseTimeDecay(B, 5, 0.5),
        "inverse_time_staircase": s.InverseTimeDecay(B, 5, 0.5, staircase=True),
        "polynomial_p2": s.PolynomialDecay(B, T - W, end_learning_rate=E, power=2.0),
        "piecewise_constant": s.PiecewiseConstantDecay([10, 15], [0.1, 0.01, 0.001]),
    }.items()}


def detectron2_rows():
    from fvcore.common.param_scheduler import CosineParamScheduler, MultiStepParamScheduler
    if "detectron2" in FILES:
        d = from_file("detectron2")
    else:
        bare("detectron2")
        bare("detectron2.solver")
        d = importlib.import_module("detectron2.solver.lr_scheduler")

    def warmed(schedule, factor=0.001, method="linear", rescale=False):
        warmup = d.WarmupParamScheduler(schedule, factor, W / T, method, rescale)
        return drive(lambda o: d.LRMultiplier(o, warmup, max_iter=T))

    to_zero, to_end = CosineParamScheduler(1, 0), CosineParamScheduler(1, E / B)
    steps = MultiStepParamScheduler([1, 0.1, 0.01], milestones=[10, 15], num_updates=T)
    return {
        "cosine": warmed(to_zero),
        "cosine_rescale": warmed(to_zero, rescale=True),
        "cosine_end": warmed(to_end),
        "cosine_end_rescale": warmed(to_end, rescale=True),
        "cosine_constant": warmed(to_end, 0.1, "constant"),
        "cosine_constant_rescale": warmed(to_end, 0.1, "constant", True),
        "multistep": warmed(steps),
        "multistep_rescale": warmed(steps, rescale=True),
        "multistep_constant": warmed(steps, 0.1, "constant"),
        "multistep_constant_rescale": warmed(steps, 0.1, "constant", True),
        "WarmupMultiStepLR": drive(lambda o: d.WarmupMultiStepLR(o, [10, 15], warmup_iters=W)),
        "WarmupCosineLR": drive(lambda o: d.WarmupCosineLR(o, T, warmup_iters=W)),
    }


def mmengine_rows():
    import mmengine.optim.scheduler as s

    def linear(o, start):
        return s.LinearLR(o, start_factor=start, begin=0, end=W, by_epoch=False)

    rest = dict(begin=W, end=T, by_epoch=False)
    return {
        "linear_then_cosine": drive(lambda o: [
            linear(o, 1 / 3), s.CosineAnnealingLR(o, T_max=T - W, eta_min=E, **rest)]),
        "linear_multistep": drive(lambda o: [
            linear(o, 0.001), s.MultiStepLR(o, milestones=[10, 15], gamma=0.1, by_epoch=False)]),
        "linear_then_poly": drive(lambda o: [linear(o, 0.001), s.PolyLR(o, power=0.9, eta_min=E, **rest)]),
        "poly_p2": drive(lambda o: s.PolyLR(o, power=2, eta_min=E, begin=0, end=T, by_epoch=False)),
        "cosine_restart": drive(lambda o: s.CosineRestartLR(
            o, periods=[6, 14], restart_weights=[1, 0.5], eta_min=E, by_epoch=False)),
        "constant": drive(lambda o: s.ConstantLR(o, factor=0.1, begin=0, end=W, by_epoch=False)),
    }


def pytorch_warmup_rows():
    import pytorch_warmup as p
    import torch

    def dampened(make_warmup, optimizer=None, delay=0):
        optimizer = optimizer or sgd()
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=T - delay)
        warmup = make_warmup(optimizer)
        rates = []
        for _ in range(T):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            iteration = warmup.last_step + 1
            with warmup.dampening():
                if iteration >= delay:
                    decay.step()
        return rates

    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=B, betas=(0.9, 0.75))
    return {
        "linear_cosine": dampened(lambda o: p.LinearWarmup(o, warmup_period=W)),
        "linear_cosine_delayed": dampened(lambda o: p.LinearWarmup(o, warmup_period=W), delay=W),
        "exponential_cosine": dampened(lambda o: p.ExponentialWarmup(o, warmup_period=W)),
        "untuned_linear_cosine": dampened(p.UntunedLinearWarmup, adam),
    }


def paddle_rows():
    import paddle
    s = paddle.optimizer.lr

    def applied(schedule):
        optimizer = paddle.optimizer.SGD(schedule, [paddle.create_parameter([1], "float32")])
        rates = []
        for _ in range(T):
            rates.append(float(optimizer.get_lr()))
            optimizer.step()
            schedule.step()
        return rates

    return {name: applied(schedule) for name, schedule in {
        "warmup_cosine": s.LinearWarmup(s.CosineAnnealingDecay(B, T_max=T - W, eta_min=E), W, 0.0, B),
        "polynomial_p2": s.PolynomialDecay(B, T - W, end_lr=E, power=2.0),
        "noam": s.NoamDecay(d_model=20, warmup_steps=W, learning_rate=1.0),
        "inverse_time": s.InverseTimeDecay(B, gamma=0.1),
    }.items()}


def composer_rows():
    import torch
    bare("composer")
    bare("composer.optim")
    utils, core = bare("composer.utils"), bare("composer.core")
    utils.StringEnum = importlib.import_module("composer.utils.string_enum").StringEnum
    time = importlib.import_module("composer.core.time")
    core.State, core.Time, core.TimeUnit = object, time.Time, time.TimeUnit
    schedulers = torch.optim.lr_scheduler
    schedulers.LRScheduler = getattr(schedulers, "LRScheduler", schedulers._LRScheduler)
    s = importlib.import_module("composer.optim.scheduler")

    def trained(schedule):
        """The rate is set before the timestamp advances, as in Trainer._train_loop."""
        state = types.SimpleNamespace(
            optimizers=[sgd()], timestamp=time.Timestamp(), max_duration=time.Time(T, "ba"), dataloader_len=T)
        scheduler = s.compile_composer_scheduler(schedule, state)
        rates = []
        for _ in range(T):
            rates.append(state.optimizers[0].param_groups[0]["lr"])
            state.optimizers[0].step()
            scheduler.step()
            state.timestamp = state.timestamp.to_next_batch()
        return rates

    return {
        "cosine_warmup": trained(s.CosineAnnealingWithWarmupScheduler(f"{W}ba", "1dur", alpha_f=E / B)),
        "linear_warmup": trained(s.LinearWithWarmupScheduler(f"{W}ba", alpha_f=E / B)),
    }


def katsura_rows():
    if "katsura" not in FILES:
        raise ImportError("no --file katsura")
    restarts = from_file("katsura").CosineAnnealingWarmupRestarts

    def cycles(mult):
        return drive(lambda o: restarts(o, first_cycle_steps=10, cycle_mult=mult, max_lr=B, min_lr=E,
                                        warmup_steps=W, gamma=0.5))

    return {"cycles_mult1": cycles(1.0), "cycles_mult2": cycles(2.0)}


def ildoonet_rows():
    from torch.optim.lr_scheduler import CosineAnnealingLR
    from warmup_scheduler import GradualWarmupScheduler

    def make(o):
        return GradualWarmupScheduler(o, multiplier=1, total_epoch=W,
                                      after_scheduler=CosineAnnealingLR(o, T - W, eta_min=E))

    def readme():
        """step(epoch), counted from 1, before each update."""
        optimizer = sgd()
        scheduler = make(optimizer)
        rates = []
        for epoch in range(1, T + 1):
            scheduler.step(epoch)
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
        return rates

    return {"cosine": drive(make), "cosine_readme": readme()}


def same(a, b):
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=1e-12, abs_tol=1e-15) for x, y in zip(a, b))


def version_of(library):
    if library in FILES:
        return FILES[library][0]
    if library == "torch":
        return str(sys.modules["torch"].__version__)
    return importlib.metadata.version(PACKAGES.get(library, library))


def text(recording):
    def lines(entries):
        return ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())

    return (f'{{\n"case": {json.dumps(recording["case"])},\n'
            f'"versions": {{\n{lines(recording["versions"])}\n}},\n'
            f'"note": {json.dumps(recording["note"])},\n'
            f'"lr": {{\n{lines(recording["lr"])}\n}}\n}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--merge", type=pathlib.Path, metavar="FILE", help="start from this recording")
    parser.add_argument("--file", nargs=3, action="append", default=[], metavar=("LIBRARY", "VERSION", "PATH"),
                        help="take detectron2 or katsura from a single file")
    arguments = parser.parse_args()
    FILES.update({library: (version, path) for library, version, path in arguments.file})
    case = {"B": B, "W": W, "T": T, "E": E}
    recording = {"case": case, "versions": {}, "note": NOTE, "lr": {}}
    if arguments.merge:
        recording = json.loads(arguments.merge.read_text())
        if recording["case"] != case:
            sys.exit(f"{arguments.merge} is of another case")
    versions, rates = recording["versions"], recording["lr"]
    for library, rows in {
            "hf": hf_rows, "timm": timm_rows, "optax": optax_rows, "torch": torch_rows, "keras": keras_rows,
            "detectron2": detectron2_rows, "mmengine": mmengine_rows, "pytorch_warmup": pytorch_warmup_rows,
            "paddle": paddle_rows, "composer": composer_rows, "katsura": katsura_rows,
            "ildoonet": ildoonet_rows}.items():
        try:
            evaluated, version = rows(), version_of(library)
        except ImportError as error:
            print(f"{library}: left out: {error}", file=sys.stderr)
            continue
        known = versions.setdefault(PACKAGES.get(library, library), version)
        for name, row in evaluated.items():
            name = f"{library}/{name}"
            if name not in rates:
                rates[name] = row
                if version != known:
                    versions[name] = version
            elif version == versions.get(name, known) and not same(row, rates[name]):
                rates[name] = row
        if library == "detectron2":
            versions["fvcore"] = importlib.metadata.version("fvcore")
    sys.stdout.write(text(recording))


if __name__ == "__main__":
    main()
