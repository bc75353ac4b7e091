"""What a run prints at its end."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hfseg.errors import printable
from hfseg.metrics import metric_name, uncertain_choice, useless, with_interval


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
