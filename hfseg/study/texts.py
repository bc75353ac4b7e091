"""How a study's numbers read: cells of its tables, and the notes that go with them."""

from collections.abc import Callable, Mapping
from typing import Any

from hfseg.reporting import UNDEFINED

Tree = Mapping[str, Any]


def score(interval: Tree | None) -> str:
    """`0.581 [0.560, 0.601]`, with a star where it is of images only."""
    if interval is None or interval["value"] is None:
        return UNDEFINED
    if interval["low"] is None:
        return f"{interval['value']:.3f}"
    star = "" if interval["over_seeds"] else "*"
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]{star}"


def number(interval: Tree | None) -> str:
    """The score without its interval."""
    return UNDEFINED if interval is None or interval["value"] is None else f"{interval['value']:.3f}"


def duration(minutes: float | None) -> str:
    if minutes is None:
        return UNDEFINED
    return f"{60 * minutes:.0f} s" if minutes < 2 else f"{minutes:.1f} min"


COSTS = ("trained / all parameters", "time of a run", "peak memory")  # the last columns of the table of arms


def arm_columns(study: Tree) -> list[str]:
    """Head of the table of arms."""
    columns = ["arm", "start", "runs", "test mIoU", "validation mIoU"]
    return [*columns, *(["test Boundary IoU"] if has_boundary(study) else []), *COSTS]


def has_boundary(study: Tree) -> bool:
    return any("boundary_iou" in arm.get("test", {}) for arm in study["arms"].values())


def arm_cells(study: Tree, name: str) -> list[str]:
    """Row of the table of arms; an arm without a run has dashes."""
    arm = study["arms"][name]
    runs = f"{len(arm['seeds'])} of {arm['planned_runs']}" if len(arm["seeds"]) < arm["planned_runs"] else ""
    test, validation = arm.get("test", {}), arm.get("eval", {})
    cells = [arm["start"], runs or str(arm["planned_runs"]), score(test.get("mean_iou"))]
    cells.append(number(validation.get("mean_iou")))
    cells += [score(test.get("boundary_iou"))] if has_boundary(study) else []
    if not test:
        return [*cells, UNDEFINED, UNDEFINED, UNDEFINED]
    trained, total, memory = arm["trained_parameters"], arm["parameters"], arm["peak_memory_mb"]
    return [
        *cells,
        f"{millions(trained)} / {millions(total)}",
        duration(arm["minutes_per_run"]),
        UNDEFINED if memory is None else f"{memory / 1024:.1f} GiB",
    ]


def millions(count: int | None) -> str:
    return UNDEFINED if count is None else f"{count / 1e6:.2f} M"


def difference_cells(difference: Tree) -> list[str]:
    """Second minus first, in points, and the runs of both."""
    one, other = difference["runs"][::-1]
    runs = f"{one} and {other}"
    if difference.get("value") is None:
        return [UNDEFINED, UNDEFINED, runs]
    points = f"{100 * difference['value']:+.1f}"
    if difference["low"] is None:
        return [points, UNDEFINED, runs]
    star = "" if difference["over_seeds"] else "*"
    return [points, f"[{100 * difference['low']:+.1f}, {100 * difference['high']:+.1f}]{star}", runs]


def headline(study: Tree) -> str:
    """The best arm, in a sentence."""
    if study["best_arm"] is None:
        return "No arm has a finished run yet."
    best = study["arms"][study["best_arm"]]
    return (
        f"Best on validation: {study['best_arm']} ({best['model']}, {best['start']}), whose mean IoU on the "
        f"{study['num_images']['test']:,} test images is {score(best['test']['mean_iou'])}."
    )


def pretraining(study: Tree, shown: Callable[[str], str] = str) -> list[str]:
    """A sentence about each pretraining run that is finished; `shown` escapes what users have named."""
    lines = []
    for name, each in study["pretraining"].items():
        start = f"from {shown(each['init'])}" if each["init"] else "from scratch"
        effort = f"{each['steps']:,} steps in {duration(each['minutes'])}" if each["steps"] else "not trained"
        images = f"{each['num_images']:,} test images" if each["num_images"] else "test images"
        value = score(each["test_mean_iou"] | {"over_seeds": True})
        data = shown(each["data"])
        lines.append(f"{name}: {each['model']} {start} on {data}, {effort}; mean IoU on its {images} {value}.")
    return lines


def notes(study: Tree) -> list[str]:
    """How the numbers were made, and what they do not say."""
    intervals, images = study["num_intervals"], study["num_images"]
    pretrained = any(str(arm["init"]).startswith("pretrain-") for arm in study["arms"].values())
    starred = any(len(arm["seeds"]) == 1 for arm in study["arms"].values())
    lines = [
        "Mean IoU is of one confusion matrix over all valid pixels at the labels' native size, averaged over runs. "
        "Checkpoints and the best arm were chosen on validation; test was scored once per run."
    ]
    if images:
        lines.append(
            f"Brackets hold 95 % intervals over images ({images['validation']:,} of validation, {images['test']:,} of "
            "test; bootstrap, the same draws for all arms) and over seeds (Student's t, as seeds are few). Images are "
            "taken as independent; differences are on the same test images."
        )
    if starred:
        lines.append(
            "* One seed: the interval is over images only. It does not say what another seed would give, so no claim "
            "about the method rests on it."
        )
    if intervals > 1:
        lines.append(
            f"{intervals} intervals of mean IoU are shown, each at 95 % by itself, not corrected for their number: of "
            "twenty such intervals one misses on average."
        )
    if pretrained:
        lines.append(
            "All runs of an arm begin from the same pretraining run: what another pretraining would give is not in "
            "the intervals."
        )
    if any(arm["init"] for arm in study["arms"].values()):
        lines.append(
            "A pretrained arm begins from all weights of its checkpoint that fit: encoder and, where the checkpoint "
            "has this head, all of it but the classifier. Frozen is the encoder, with the statistics of its BatchNorm."
        )
    lines.append("Times are of one run's training, evaluations included, and depend on what else the machine did.")
    return lines
