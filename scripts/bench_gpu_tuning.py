"""What a GPU wants of our constants, and where its time goes; see `bench_gpu`.

The constants say how many rows of an image are computed at once; they were chosen on a CPU's cache. A sweep takes one
model, sets a constant before each step, and times all values in turn. "plain" is the form without rows at a time.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench import make_model
from bench_gpu_models import (
    DEVICE,
    SIDES,
    Case,
    Clock,
    Step,
    allocated,
    make_step,
    medians,
    peak_of,
    set_precision,
    timed,
)
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers import SegformerImageProcessor

import hfseg
from hfseg.models import segmentation_loss

Row = dict[str, Any]
SUFFIX = "GPU" if DEVICE == "cuda" else "CPU"
LOSS = ("hfseg.models.loss", f"BAND_ELEMENTS_{SUFFIX}")
LOGITS = ("hfseg.models.windows", f"BAND_ELEMENTS_{SUFFIX}")
WINDOWS = ("hfseg.models.windows", "WINDOWS_PER_PASS_GPU")
Setting = tuple[str, str]  # module and name


def constant_rows(
    cases: Sequence[Case], values: Sequence[int], size: int, rounds: int, seconds: float, clock: Clock
) -> list[Row]:
    """Sweeps over `values`; `speed_up` is over the constant as it stands."""
    rows = []
    for case in cases:
        step = make_step(case, "ours", "eager")
        name = f"{case.model} {case.task}, batch {case.batch}"
        if case.task == "training":
            rows += sweep(name, step, LOSS, values, rounds, seconds, clock)
            rows += plain_rows(case, rounds, seconds, clock)
    step = sliding_step(size)
    rows += sweep("b0 in windows", step, WINDOWS, [1, 2, 4, 8], rounds, seconds, clock)
    rows += sweep("b0 in windows", step, LOGITS, values, rounds, seconds, clock)
    return rows


def sweep(
    name: str, step: Step, setting: Setting, values: Sequence[int], rounds: int, seconds: float, clock: Clock
) -> list[Row]:
    """Rows of one constant's values."""
    if clock.left() <= 0:
        return [sweep_row(name, setting[1], "-", "skipped: no time left", "-", "-")]
    with restored(setting) as standing:
        steps = {value: with_value(step, setting, value) for value in dict.fromkeys([standing, *values])}
        return sweep_rows(name, ".".join((setting[0].rpartition(".")[2], setting[1])), steps, rounds, seconds, clock)


def plain_rows(case: Case, rounds: int, seconds: float, clock: Clock) -> list[Row]:
    """The loss by torch's functions, against rows at a time."""
    with torch.device(DEVICE):
        logits = torch.randn(case.batch, case.classes, case.size // 4, case.size // 4, requires_grad=True)
        labels = torch.randint(0, case.classes, (case.batch, case.size, case.size))

    def plain() -> None:
        large = F.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
        F.cross_entropy(large, labels, ignore_index=255).backward()

    losses: dict[Any, Step] = {
        "rows at a time": lambda: segmentation_loss(logits, labels).mean.backward(),
        "plain": plain,
    }
    return sweep_rows(f"loss alone, batch {case.batch}", "loss", losses, rounds, seconds, clock)


def sweep_rows(
    name: str, constant: str, steps: dict[Any, Step], rounds: int, seconds: float, clock: Clock
) -> list[Row]:
    """The first is the one to compare with."""
    found = medians({str(value): step for value, step in steps.items()}, rounds, seconds)
    base = found[str(next(iter(steps)))]
    rows = []
    for value, step in steps.items():
        median = found[str(value)]
        peak = peak_of(step, allocated())
        rows.append(sweep_row(name, constant, value, round(1000 * median, 2), round(base / median, 2), peak))
        clock.say(" ".join(map(str, rows[-1].values())))
    return rows


def sweep_row(name: str, constant: str, value: Any, median: Any, speed_up: Any, peak: Any) -> Row:
    return {
        "step": name, "constant": constant, "value": value, "median_ms": median, "speed_up": speed_up,
        "above_weights_mb": peak,
    }  # fmt: skip


def with_value(step: Step, setting: Setting, value: int) -> Step:
    module = importlib.import_module(setting[0])

    def run() -> None:
        setattr(module, setting[1], value)
        step()

    return run


@contextmanager
def restored(setting: Setting) -> Iterator[int]:
    """Gives a constant's value, and sets it back at the end."""
    module = importlib.import_module(setting[0])
    standing: int = vars(module)[setting[1]]
    try:
        yield standing
    finally:
        setattr(module, setting[1], standing)


def sliding_step(size: int) -> Step:
    """A prediction in windows of `size` on an image twice as high and four times as wide."""
    set_precision("tf32")
    model = make_model("b0", "ours", classes=19, fuse=False).to(DEVICE)
    processor = SegformerImageProcessor(size={"height": size, "width": size})
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (2 * size, 4 * size, 3), np.uint8))
    options = hfseg.EvalConfig(mode="slide", crop=size, stride=3 * size // 4)
    return lambda: hfseg.predict(model, [picture], processor, eval=options)


def profile_rows(cases: Sequence[Case], count: int, clock: Clock) -> list[Row]:
    """The operations that take most of the device's time in a step of each side; "all" is beside the step's own time.

    Where the device is busy for much less than the step takes, it waits for the CPU to start its work.
    """
    rows = []
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])]
    for case in cases:
        for side in SIDES:
            step = make_step(case, side, "eager")
            for _ in range(3):
                step()
            wall = timed(step, 5)
            with profile(activities=activities) as profiler:
                timed(step, 3)
            found = [(device_ms(each) / 3, each.count // 3, each.key) for each in profiler.key_averages()]
            total = (sum(ms for ms, _, _ in found), sum(calls for _, calls, _ in found), "all")
            name = {"model": case.model, "task": case.task, "batch": case.batch, "side": side}
            for ms, calls, key in [total, *sorted(found, reverse=True)[:count]]:
                numbers = {"step_ms": round(1000 * wall, 2), "operation": key, "ms": round(ms, 3), "calls": calls}
                rows.append(name | numbers)
            clock.say(f"profile of {case.model} {case.task} {side}: {wall * 1000:.1f} ms")
    return rows


def device_ms(event: Any) -> float:
    """Milliseconds of an operation itself; 0 for kernels, which the profiler lists besides the operations."""
    if DEVICE == "cpu":
        return event.self_cpu_time_total / 1000
    return 0.0 if event.device_type == torch.autograd.DeviceType.CUDA else event.self_device_time_total / 1000
