"""The models on one GPU: inference and training steps of ours and of stock, timed in turn; see `bench_gpu`.

Stock is transformers' SegFormer, or torchvision's FCN. An implementation is named by a side and a form:

* eager: as a model is built.
* channels-last: weights and images in that memory format (ours brings its images to it by itself).
* compiled: `torch.compile(model, dynamic=False)`.
* graph: the eager step recorded as a CUDA graph and replayed.

A training step is forward, loss at full size and backward, without an optimizer. Stock SegFormer computes the loss in
its `forward`, so compiling the model compiles its loss, too.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench import make_model, synchronise

from hfseg.models import segmentation_loss

Row = dict[str, Any]
Step = Callable[[], object]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILER = "inductor" if DEVICE == "cuda" else "eager"  # a CPU only shows that the command works
SIDES = ("stock", "ours")
AT_ONCE = 8  # processes that compile: each takes two cores and some GB of the GPU
RETRIEVAL_SECONDS = 20.0  # to trace both sides of a case again and take their kernels from the compiler's cache


@dataclass(frozen=True)
class Case:
    """What all implementations of a comparison compute."""

    model: str  # b0, b2 or fcn
    task: str  # inference or training
    batch: int
    size: int  # of the square images
    classes: int
    precision: str  # fp32, tf32, or bf16 (autocast)


class Clock:
    """Seconds since the start, against a limit."""

    def __init__(self, limit: float) -> None:
        self.limit, self.began = limit, time.perf_counter()

    def left(self) -> float:
        return self.limit - (time.perf_counter() - self.began)

    def say(self, text: object) -> None:
        print(f"[{time.perf_counter() - self.began:4.0f} s] {text}", file=sys.stderr, flush=True)


def set_precision(precision: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def make_step(case: Case, side: str, form: str) -> Step:
    """One implementation's step, which waits for nothing; its model and inputs stay on the device."""
    torch.manual_seed(0)
    set_precision(case.precision)
    implementation = "torchvision" if case.model == "fcn" and side == "stock" else side
    with torch.device(DEVICE):
        model = make_model(case.model, implementation, case.classes, fuse=case.task == "inference")
        pixel_values = torch.randn(case.batch, 3, case.size, case.size)
        labels = torch.randint(0, case.classes, (case.batch, case.size, case.size))
    if form == "channels-last":
        model = model.to(memory_format=torch.channels_last)
        pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
    model.train(case.task == "training")
    call = torch.compile(model, dynamic=False, backend=COMPILER) if form == "compiled" else model

    def autocast() -> torch.autocast:
        return torch.autocast(DEVICE, torch.bfloat16, enabled=case.precision == "bf16")

    def logits() -> torch.Tensor:
        with autocast():
            output = call(pixel_values)
        return output["out"] if implementation == "torchvision" else output.logits

    def loss() -> torch.Tensor:
        if side == "ours":
            return segmentation_loss(logits(), labels).mean
        if implementation == "torchvision":
            return F.cross_entropy(logits().float(), labels, ignore_index=255)  # it upsamples its logits
        with autocast():
            return call(pixel_values, labels=labels).loss

    def inference() -> None:
        with torch.no_grad():
            logits()

    def training() -> None:
        loss().backward()
        model.zero_grad(set_to_none=True)

    step = training if case.task == "training" else inference
    return captured(step) if form == "graph" else step


def captured(step: Step) -> Step:
    """A step as a CUDA graph: its kernels without what starts them."""
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def timed(step: Step, calls: int) -> float:
    """Seconds for each of so many calls."""
    synchronise(DEVICE)
    start = time.perf_counter()
    for _ in range(calls):
        step()
    synchronise(DEVICE)
    return (time.perf_counter() - start) / calls


def medians(steps: dict[str, Step], rounds: int, seconds: float) -> dict[str, float]:
    """Seconds of each step: the median of rounds in which all take turns, each for about `seconds`."""
    calls = {}
    for name, step in steps.items():
        step()
        calls[name] = min(100, 1 + int(seconds / timed(step, 1)))
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(timed(step, calls[name]))
    return {name: statistics.median(each) for name, each in times.items()}


def peak_of(step: Step, before: int) -> int | str:
    """The GPU memory in MB that a step takes above `before` bytes, with its weights and inputs."""
    if DEVICE == "cpu":
        return "-"
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20)


def allocated() -> int:
    return torch.cuda.memory_allocated() if DEVICE == "cuda" else 0


def compare(case: Case, forms: Sequence[str], rounds: int, seconds: float) -> list[Row]:
    """Rows of both sides in each form; `speed_up` is over stock in the first form.

    What cannot be built or run, for want of memory or because the compiler fails, says so in its row.
    """
    steps: dict[str, Step] = {}
    peaks: dict[str, int | str] = {}
    failures: dict[str, str] = {}
    names = [f"{side} {form}" for form in forms for side in SIDES]
    gc.collect()  # of the case before: what it holds would count as free
    for name in names:
        before = allocated()
        side, form = name.split()
        try:
            step = make_step(case, side, form)
            step()
            peaks[name] = "-" if form == "graph" else peak_of(step, before)  # a graph keeps memory of its own
            steps[name] = step
        except RuntimeError as error:
            failures[name] = f"failed: {str(error).strip().splitlines()[0][:80]}"
    found = medians(steps, rounds, seconds)
    return [model_row(case, name, found, peaks, failures, names[0]) for name in names]


def model_row(
    case: Case,
    name: str,
    found: dict[str, float],
    peaks: dict[str, int | str],
    failures: dict[str, str],
    base: str,
) -> Row:
    words = {"model": case.model, "task": case.task, "batch": case.batch, "precision": case.precision}
    if name not in found:
        numbers: Row = {"median_ms": failures[name], "images_per_s": "-", "speed_up": "-", "peak_mb": "-"}
    else:
        numbers = {
            "median_ms": round(1000 * found[name], 2),
            "images_per_s": round(case.batch / found[name], 1),
            "speed_up": round(found[base] / found[name], 2) if base in found else "-",
            "peak_mb": peaks[name],
        }
    return words | {"implementation": name} | numbers


def skipped(case: Case, forms: Sequence[str], why: str) -> list[Row]:
    names = [f"{side} {form}" for form in forms for side in SIDES]
    return [model_row(case, name, {}, {}, dict.fromkeys(names, f"skipped: {why}"), "") for name in names]


def rows_of(cases: Sequence[Case], forms: Sequence[str], rounds: int, seconds: float, clock: Clock) -> list[Row]:
    """Rows of the cases that fit into the time, and of those that do not."""
    rows = []
    for case in cases:
        if clock.left() <= 0:
            rows += skipped(case, forms, "no time left")
            continue
        rows += compare(case, forms, rounds, seconds)
        torch._dynamo.reset()  # a class is compiled anew for each case, eight times at most
        for row in rows[-len(SIDES) * len(forms) :]:
            clock.say(" ".join(map(str, row.values())))
    return rows


def compiled_rows(cases: Sequence[Case], rounds: int, seconds: float, clock: Clock) -> list[Row]:
    """Both sides eager and compiled; the compiling is done ahead, side by side, as far as the time goes."""
    forms = ("eager", "compiled")
    if DEVICE == "cpu":
        return rows_of(cases, forms, rounds, seconds, clock)
    done = compile_ahead(cases, clock)
    rows = []
    for case in cases:
        if case in done:
            rows += rows_of([case], forms, rounds, seconds, clock)
        else:
            rows += skipped(case, forms, "not compiled in time")
    return rows


def compile_ahead(cases: Sequence[Case], clock: Clock) -> set[Case]:
    """Fills the compiler's cache on disk, in processes of their own; the cases whose two sides have been tried."""
    waiting = [(case, side) for case in cases for side in SIDES]
    running: dict[tuple[Case, str], subprocess.Popen[bytes]] = {}
    done: set[tuple[Case, str]] = set()
    with ExitStack() as stack:
        while (waiting or running) and clock.left() > RETRIEVAL_SECONDS * (1 + len(complete(done, cases))):
            while waiting and len(running) < AT_ONCE:
                job = waiting.pop(0)
                running[job] = stack.enter_context(start_compiling(*job))
                stack.callback(running[job].kill)
            time.sleep(0.2)
            for job, process in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    done.add(job)  # also what cannot be compiled: its row will say why
                    clock.say(f"compiled, exit status {process.returncode}: {job[1]} {job[0]}")
    return complete(done, cases)


def complete(done: set[tuple[Case, str]], cases: Sequence[Case]) -> set[Case]:
    return {case for case in cases if all((case, side) in done for side in SIDES)}


def start_compiling(case: Case, side: str) -> "subprocess.Popen[bytes]":
    arguments = json.dumps({"case": asdict(case), "side": side})
    script = Path(__file__).with_name("bench.py")
    words = [sys.executable, str(script), "_once", "compile_step", arguments]
    environment = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "2"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)


def compile_step(case: dict[str, Any], side: str) -> Row:
    """Compiles one step, which leaves its kernels in the compiler's cache."""
    step = make_step(Case(**case), side, "compiled")
    return {"seconds": timed(step, 1)}
