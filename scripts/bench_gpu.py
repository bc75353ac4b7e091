"""`bench.py gpu`: what one CUDA card gives, against stock transformers and torchvision, within some minutes.

* `inference`, `training`: models eager and in channels-last memory, in fp32, tf32 and bf16, see `bench_gpu_models`.
* `evaluation`, `prediction`: from logits or images to scores or class ids, see `bench_gpu_use`.
* `constants`, `profile`: how many rows at a time are best here, and where the time goes, see `bench_gpu_tuning`.
* `compiled`: `torch.compile` on both sides, in bf16. `graph`: eager inference of one image as a CUDA graph.

What does not fit into the minutes is listed as skipped. A section that fails ends with its error; the others go on.
"""

import argparse
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from bench_gpu_models import DEVICE, Case, Clock, compiled_rows, rows_of
from bench_gpu_tuning import constant_rows, profile_rows
from bench_gpu_use import evaluation_rows, prediction_rows

from hfseg import UserError

Row = dict[str, Any]
Tables = dict[str, list[Row]]


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    models: tuple[str, ...]
    size: int  # of the square images
    classes: int
    batches: tuple[int, ...]  # for inference; training has the last
    images: int  # to evaluate, and to predict
    rounds: int  # that each implementation is timed in
    seconds: float  # of an implementation in a round
    powers: tuple[int, ...]  # of two, which the constants take
    profiled: tuple[str, ...]  # tasks of SegFormer-B0
    compiled: tuple[tuple[str, str], ...]  # models and tasks


# compiled: in the order of what is wanted most
ALL_COMPILED = (
    ("b0", "training"), ("b2", "training"), ("b0", "inference"), ("fcn", "training"), ("b2", "inference"),
    ("fcn", "inference"),
)  # fmt: skip
FULL = Scale(
    models=("b0", "b2", "fcn"), size=512, classes=19, batches=(1, 8), images=96, rounds=5, seconds=0.08,
    powers=(20, 22, 24, 26, 28), profiled=("training", "inference"), compiled=ALL_COMPILED,
)  # fmt: skip
TINY = Scale(
    models=("b0", "fcn"), size=32, classes=3, batches=(2,), images=2, rounds=1, seconds=0.0,
    powers=(10,), profiled=("inference",), compiled=(("b0", "training"),),
)  # fmt: skip
FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, ImportError, AssertionError, UserError)


class GpuBench:
    """The sections, each of which gives the rows of its table."""

    def __init__(self, scale: Scale, clock: Clock) -> None:
        self.scale, self.clock = scale, clock
        self.precisions = ("fp32", "tf32", "bf16") if DEVICE == "cuda" else ("fp32", "bf16")
        self.timing = (scale.rounds, scale.seconds, clock)

    def case(self, model: str, task: str, batch: int, precision: str) -> Case:
        return Case(model, task, batch, self.scale.size, self.scale.classes, precision)

    @property
    def training_batch(self) -> int:
        return self.scale.batches[-1]

    def inference(self) -> list[Row]:
        rows = []
        for name, batch, precision in product(self.scale.models, self.scale.batches, self.precisions):
            is_largest = batch == self.training_batch  # small batches wait for the CPU, not for the matrix units
            forms = ("eager", "channels-last") if precision == "bf16" and is_largest else ("eager",)
            if precision != "tf32" or is_largest:
                rows += rows_of([self.case(name, "inference", batch, precision)], forms, *self.timing)
        return rows

    def training(self) -> list[Row]:
        pairs = product(self.scale.models, self.precisions)
        cases = [self.case(name, "training", self.training_batch, precision) for name, precision in pairs]
        return rows_of(cases, ("eager",), *self.timing)

    def evaluation(self) -> list[Row]:
        return evaluation_rows(self.scale.images, self.scale.size, self.scale.classes, rounds=1)

    def prediction(self) -> list[Row]:
        return prediction_rows(self.scale.images, self.scale.size, self.scale.classes, rounds=2)

    def constants(self) -> list[Row]:
        wanted = [("b0", "training", self.training_batch), ("b2", "training", self.training_batch),
                  ("b0", "inference", self.training_batch)]  # fmt: skip
        cases = [self.case(*each, "bf16") for each in wanted if each[0] in self.scale.models]
        values = [1 << power for power in self.scale.powers]
        return constant_rows(cases, values, self.scale.size, min(3, self.scale.rounds), *self.timing[1:])

    def profile(self) -> list[Row]:
        batches = {"training": self.training_batch, "inference": self.scale.batches[0]}
        cases = [self.case("b0", task, batches[task], "bf16") for task in self.scale.profiled]
        return profile_rows(cases, 14, self.clock)

    def compiled(self) -> list[Row]:
        cases = [self.case(*each, self.training_batch, "bf16") for each in self.scale.compiled]
        return compiled_rows(cases, *self.timing)

    def graph(self) -> list[Row]:
        if DEVICE == "cpu":
            return []
        names = [name for name in self.scale.models if name != "fcn"]  # as a graph it ends in an illegal memory access
        cases = [self.case(name, "inference", 1, "bf16") for name in names]
        return rows_of(cases, ("eager", "graph"), *self.timing)


SECTIONS: dict[str, Callable[[GpuBench], list[Row]]] = {
    "inference": GpuBench.inference,
    "training": GpuBench.training,
    "evaluation": GpuBench.evaluation,
    "prediction": GpuBench.prediction,
    "profile": GpuBench.profile,
    "constants": GpuBench.constants,
    "compiled": GpuBench.compiled,
    "graph": GpuBench.graph,
}


def gpu_tables(arguments: argparse.Namespace, write: Callable[[Tables], None]) -> Tables:
    """One table a section.

    Args:
        arguments: `sections` (all, if empty), `minutes` and `tiny`.
        write: called with all tables so far after each section.
    """
    scale, clock = TINY if arguments.tiny else FULL, Clock(60 * arguments.minutes)
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    settings = {"device": device, "cuda": str(torch.version.cuda), "size": scale.size, "classes": scale.classes}
    tables: Tables = {"settings": [settings]}
    bench = GpuBench(scale, clock)
    for name in arguments.sections or SECTIONS:
        clock.say(f"--- {name}")
        if clock.left() <= 0:
            tables[name] = [{"section": name, "skipped": "no time left"}]
            continue
        try:
            tables[name] = SECTIONS[name](bench)
        except FAILURES as error:
            traceback.print_exc()
            tables[name] = [{"section": name, "failed": f"{type(error).__name__}: {error}"[:300]}]
        write(tables)  # first: a device that has failed does not answer again
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
    clock.say("done")
    return tables
