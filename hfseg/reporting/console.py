"""What a run prints when its data is known, and at its end."""

import shlex
from pathlib import Path
from typing import Any

import datasets
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import TrainingArguments

from hfseg.console import say
from hfseg.errors import printable
from hfseg.labels import LabelSet
from hfseg.metrics import metric_name, uncertain_choice, useless, verdict, with_interval
from hfseg.runs import describe_hardware


def print_data(data: datasets.DatasetDict, labels: LabelSet, args: TrainingArguments) -> None:
    """How many images there are, of how many classes, and on what the run works."""
    splits = {split: rows for split, rows in data.items() if split in ("train", "validation", "test")}
    sizes = [f"{len(rows)} {split}" for split, rows in splits.items() if isinstance(rows, datasets.Dataset)]
    images = f"{', '.join(sizes)} images" if sizes else "a stream of images"
    say(f"{images}; {labels.num_labels} classes; on {'the CPU' if args.use_cpu else describe_hardware()}", "dim")


def print_end(run_dir: Path, per_class: dict[str, list[dict[str, Any]]], metrics: dict[str, Any]) -> None:
    """The result, what of it there is to look at, and the commands that come next."""
    print_table(per_class, metrics)
    if sentence := verdict(metrics, per_class):
        say(f"{sentence}\n")
    for name, file in {"report": "report.html", "card": "README.md", "model": "model"}.items():
        if (run_dir / file).exists():
            say(f"{name:8}{run_dir / file}", is_whole=True)
    if (run_dir / "model").is_dir():
        run = shlex.quote(str(run_dir))
        say("\nnext: look at the report, then")
        say(f"  hfseg predict IMAGES --model {run} --output predictions", "bold", is_whole=True)
        say(f"  hfseg push {run} hub.repo=me/NAME", "bold", is_whole=True)


def print_table(per_class: dict[str, list[dict[str, Any]]], metrics: dict[str, Any]) -> None:
    """The result, caveats first: IoU per class on both splits, and of a constant answer; `-` where undefined."""
    console = Console()
    if useless(metrics):
        console.print(Text(useless(metrics), style="bold red"))
    doubt = uncertain_choice(metrics)
    table = Table(title="IoU per class, at the labels' native size", caption=Text(doubt) if doubt else None)
    table.add_column("class")
    for split in ("validation", "test"):
        table.add_column(split, justify="right")
    for rows in zip(per_class["eval"], per_class["test"], strict=True):
        name = Text(printable(rows[0]["name"]))  # brackets are no markup
        table.add_row(name, *("-" if row["iou"] is None else f"{row['iou']:.4f}" for row in rows))
    table.add_section()
    for key, style in (("mean_iou", "bold"), ("pixel_accuracy", None)):
        scores = (with_interval(metrics, f"{prefix}_{key}") for prefix in per_class)
        table.add_row(metric_name(key), *scores, style=style)
    constant = metrics.get("test_constant_class", metrics.get("eval_constant_class"))
    table.add_row(
        Text(f"mean IoU of {constant!r} everywhere"),
        *(with_interval(metrics, f"{prefix}_constant_mean_iou") for prefix in per_class),
        style="dim",
    )
    console.print(table)
