"""`bench.py train`: mean IoU against seconds of training, ours beside transformers' Trainer and model.

SegFormer-B0 from the same random weights, on the same augmented crops in the same order, with the same batch size,
optimizer, learning rate, schedule, number of steps and seed. One side is transformers' `Trainer` with its
`SegformerForSemanticSegmentation`, its loss and the example's metrics; the other is `SegTrainer` with our model. Both
score the same validation images at the same steps, image and labels resized to `--eval-size` as the example does
(stock cannot batch labels of mixed sizes).

Each side is a process of its own, and they take turns: the parent hands a turn to one, which trains for `--slice`
seconds, to the end of a step, and then waits for its next turn. So both see the same machine, and neither disturbs the
other. A side's clock runs in its turns only, from the first step on: with validation, without loading and imports.

    {"curves": [{"implementation", "seconds", "step", "mean_iou"}, ...],  one row for each validation
     "levels": [{"mean_iou", "stock_s", "hfseg_s", "ratio"}, ...],        first validation at or above the level
     "equal_times": [{"seconds", "stock_mean_iou", "hfseg_mean_iou"}, ...]}  best of either until then
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

Row = dict[str, Any]
SIDES = ("stock", "hfseg")
COLOURS = {"stock": "#D55E00", "hfseg": "#0072B2"}  # Okabe and Ito's: told apart by colour-blind readers too
LEVEL_STEP = 0.05
MARK = "\x1e"  # record separator, before each line of a side to the parent
SIDE_SCRIPT = Path(__file__).with_name("bench_train_side.py")
SETTINGS = (
    "size", "eval_size", "eval_images", "batch", "steps", "eval_steps", "warmup_steps", "learning_rate", "seed",
    "slice", "minutes",
)  # fmt: skip


def train_tables(arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """Trains both, in turns, and compares their curves."""
    name = "folder" if arguments.folder else "oxford_pet" if arguments.root else "synthetic_pet"
    settings = {key: value for key, value in vars(arguments).items() if key in SETTINGS}
    settings |= {"data": name, "root": str(arguments.root or "")}
    with tempfile.TemporaryDirectory() as folder:
        children = {side: start(side, settings | {"output_dir": f"{folder}/{side}"}) for side in SIDES}
        try:
            curves = take_turns(children)
        finally:
            for child in children.values():
                child.kill()
                child.wait()
    tables = compare(curves)
    if arguments.figure is not None:
        plot(curves, arguments.figure)
    return tables | {"settings": [{key: value for key, value in settings.items() if key != "root"}]}


def start(side: str, settings: Row) -> "subprocess.Popen[str]":
    words = [sys.executable, str(SIDE_SCRIPT), side, json.dumps(settings)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def take_turns(children: dict[str, "subprocess.Popen[str]"]) -> dict[str, list[Row]]:
    """Lets one child run at a time until all are done; a child prints a row for each validation."""
    curves: dict[str, list[Row]] = {side: [] for side in children}
    active = list(children)
    for side in active:  # imports and data, before any clock runs
        _expect(children[side], "ready", side)
    while active:
        for side in list(active):
            child = children[side]
            _pipe(child.stdin).write("go\n")
            _pipe(child.stdin).flush()
            while (message := read_message(child, side))["kind"] == "validation":
                curves[side].append({"implementation": side} | message["row"])
                print(curves[side][-1], file=sys.stderr, flush=True)
            if message["kind"] == "done":
                active.remove(side)
    return curves


def read_message(child: "subprocess.Popen[str]", side: str) -> Row:
    """The next of a child's own lines; libraries print others."""
    for line in _pipe(child.stdout):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    raise SystemExit(f"The {side} training ended early, with exit code {child.wait()}; its error is above.")


def _expect(child: "subprocess.Popen[str]", kind: str, side: str) -> None:
    message = read_message(child, side)
    assert message["kind"] == kind, message


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def compare(curves: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """What the curves say; None where a level was not reached."""
    stock, ours = curves["stock"], curves["hfseg"]
    best = max((row["mean_iou"] for row in stock + ours), default=0.0)
    levels = []
    first = min((curve[0]["mean_iou"] for curve in (stock, ours) if curve), default=0.0)  # at once: no news
    for number in range(math.floor(first / LEVEL_STEP) + 1, math.floor(best / LEVEL_STEP + 1e-9) + 1):
        level = round(number * LEVEL_STEP, 2)
        theirs, mine = (first_time(curve, level) for curve in (stock, ours))
        ratio = None if theirs is None or mine is None else round(theirs / mine, 2)
        levels.append({"mean_iou": level, "stock_s": theirs, "hfseg_s": mine, "ratio": ratio})
    equal = [
        {"seconds": row["seconds"], "stock_mean_iou": best_until(stock, row["seconds"]),
         "hfseg_mean_iou": best_until(ours, row["seconds"])}
        for row in ours
    ]  # fmt: skip
    return {"curves": stock + ours, "levels": levels, "equal_times": equal}


def first_time(curve: list[Row], level: float) -> float | None:
    return next((row["seconds"] for row in curve if row["mean_iou"] >= level), None)


def best_until(curve: list[Row], seconds: float) -> float | None:
    return max((row["mean_iou"] for row in curve if row["seconds"] <= seconds), default=None)


def plot(curves: dict[str, list[Row]], path: Path) -> None:
    """Mean IoU against own seconds, a small figure."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    names = {"stock": "Trainer + stock SegFormer", "hfseg": "hfseg"}
    for side, marker in zip(SIDES, "so", strict=True):
        seconds, scores = ([row[key] for row in curves[side]] for key in ("seconds", "mean_iou"))
        axes.plot(seconds, scores, marker=marker, markersize=4, color=COLOURS[side], label=names[side])
    axes.set(xlabel="seconds of training, validation included", ylabel="validation mean IoU", xlim=(0, None))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)
