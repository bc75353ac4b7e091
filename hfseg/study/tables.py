"""A study's numbers as people read them: cells of its tables, and its headline."""

from collections.abc import Mapping
from typing import Any

from hfseg.reporting import UNDEFINED, number

Table = tuple[list[str], list[list[str]]]  # head and rows
COSTS = ("trained / all parameters", "time of a run", "peak memory")  # the last columns of the table of arms


def arm_table(study: Mapping[str, Any]) -> Table:
    """What each arm has scored and what it cost; dashes for an arm without a run."""
    has_boundary = any("boundary_iou" in arm.get("test", {}) for arm in study["arms"].values())
    head = ["arm", "start", "runs", "test mIoU", "validation mIoU", *["test Boundary IoU"] * has_boundary, *COSTS]
    rows = []
    for name, arm in study["arms"].items():
        done, planned, test = len(arm["seeds"]), arm["planned_runs"], arm.get("test", {})
        validation = (arm.get("eval", {}).get("mean_iou") or {}).get("value")
        cells = [name, arm["start"], f"{done} of {planned}" if done < planned else str(planned)]
        cells += [score(test.get("mean_iou")), number(validation), *[score(test.get("boundary_iou"))] * has_boundary]
        rows.append([*cells, *(_costs(arm) if test else [UNDEFINED] * len(COSTS))])
    return head, rows


def _costs(arm: Mapping[str, Any]) -> list[str]:
    counts = (arm["trained_parameters"], arm["parameters"])
    trained, total = (UNDEFINED if count is None else f"{count / 1e6:.2f} M" for count in counts)
    memory = arm["peak_memory_mb"]
    gigabytes = UNDEFINED if memory is None else f"{memory / 1024:.1f} GiB"
    return [f"{trained} / {total}", duration(arm["minutes_per_run"]), gigabytes]


def difference_table(study: Mapping[str, Any]) -> Table:
    """Second minus first, in points, and the runs of both."""
    rows = []
    for each in study["differences"]:
        points, interval = UNDEFINED, UNDEFINED
        if each.get("value") is not None:
            points = f"{100 * each['value']:+.1f}"
            if each["low"] is not None:
                interval = f"[{100 * each['low']:+.1f}, {100 * each['high']:+.1f}]{'' if each['over_seeds'] else '*'}"
        rows.append([pair(each), points, interval, f"{each['runs'][1]} and {each['runs'][0]}"])
    return ["difference of test mIoU", "points", "95 %", "runs"], rows


def class_table(study: Mapping[str, Any]) -> Table:
    """Each arm's test IoU of the classes; empty where arms have different ones."""
    scored = {name: arm["test"]["per_class"] for name, arm in study["arms"].items() if "test" in arm}
    if len({tuple(row["name"] for row in rows) for rows in scored.values()}) != 1:
        return [], []
    head = ["arm", *(row["name"] for row in next(iter(scored.values())))]
    return head, [[name, *(number(row["iou"]) for row in rows)] for name, rows in scored.items()]


def pair(difference: Mapping[str, Any]) -> str:
    return f"{difference['second']} \N{MINUS SIGN} {difference['first']}"


def score(interval: Mapping[str, Any] | None) -> str:
    """`0.581 [0.560, 0.601]`, with a star where it is of images only."""
    if interval is None or interval["low"] is None:
        return number(None if interval is None else interval["value"])
    star = "" if interval.get("over_seeds", True) else "*"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]{star}"


def duration(minutes: float | None) -> str:
    if minutes is None:
        return UNDEFINED
    return f"{60 * minutes:.0f} s" if minutes < 2 else f"{minutes:.1f} min"


def headline(study: Mapping[str, Any]) -> str:
    """The best arm, in a sentence."""
    if study["best_arm"] is None:
        return "No arm has a finished run yet."
    best = study["arms"][study["best_arm"]]
    return (
        f"Best on validation: {study['best_arm']} ({best['model']}, {best['start']}), whose mean IoU on the "
        f"{study['num_images']['test']:,} test images is {score(best['test']['mean_iou'])}."
    )
