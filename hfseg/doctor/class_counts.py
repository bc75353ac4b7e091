"""Pixels of each class in each split, and what their absence means, or that of images."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hfseg.doctor.findings import Finding
from hfseg.doctor.inspection import Inspection
from hfseg.labels import LabelSet
from hfseg.metrics import WIDE, half_width

MAX_IGNORED = 0.5
# The standard deviation of the mean IoU over N images is about SPREAD / sqrt(N). In the runs of `model_cards` it is
# 0.05 to 0.16; models that have learnt something have the larger ones.
SPREAD = 0.16


def count_classes(
    inspections: Iterable[Inspection], labels: LabelSet
) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """Pixels, and masks that have any, of each class and ignored (K + 1,) for each split with masks."""
    pixels: dict[str, NDArray[np.int64]] = {}
    images: dict[str, NDArray[np.int64]] = {}
    for found in inspections:
        if not found.mask_name:
            continue
        for counts in (pixels, images):
            counts.setdefault(found.split, np.zeros(labels.num_labels + 1, dtype=np.int64))
        for value, count in {} if found.refused else found.values.items():
            if value == labels.ignore_index or 0 <= value < labels.num_labels:
                index = labels.num_labels if value == labels.ignore_index else value
                pixels[found.split][index] += count
                images[found.split][index] += 1
    return pixels, images


def judge_classes(pixels: Mapping[str, NDArray[np.int64]], labels: LabelSet) -> list[Finding]:
    """Classes that never occur, splits of one class and splits that are mostly ignored. Meant for all of the data."""
    findings = []
    alone = {split: np.flatnonzero(counts[:-1]) for split, counts in pixels.items()}
    alone = {split: classes for split, classes in alone.items() if len(classes) == 1}
    for split, classes in alone.items():
        what = f"of the {split} pixels that count, all are {labels.names[classes[0]]!r}: one answer is always right"
        remedy = f"Check that the other classes have their ids in the masks, and not {labels.ignore_index}."
        findings.append(Finding("error" if split == "train" else "warning", "one-class-split", (), what, remedy))
    for split, counts in pixels.items():
        share = counts[-1] / max(counts.sum(), 1)
        if share == 1:
            what = f"all pixels of the {split} split are ignored ({labels.ignore_index}): there is nothing to score"
            remedy = "Label it, or move labelled samples to it."
            findings.append(Finding("error", "nothing-labelled", (), what, remedy))
        elif share > MAX_IGNORED:
            what = f"{100 * share:.0f} % of the {split} pixels are ignored ({labels.ignore_index})"
            remedy = (
                "Check how the masks are read: classes may be missing from the list, or reduce_labels set wrongly."
            )
            findings.append(Finding("warning", "mostly-ignored", (), what, remedy))
    total = sum(pixels.values(), start=np.zeros(labels.num_labels + 1, dtype=np.int64))
    absent = [index for index in labels.scored if not total[index]]
    if absent == [labels.num_labels - 1] and total[-1] and labels.num_labels > 2:
        what = f"the last class, {labels.names[-1]!r}, never occurs, and all others and {labels.ignore_index} do"
        remedy = "If the masks start at 0 or were reduced before, set data.reduce_labels=false: it was applied twice."
        return [*findings, Finding("warning", "reduced-twice", (), what, remedy)]
    for index in labels.scored:
        splits = [split for split, counts in pixels.items() if not counts[index] and split not in alone]
        if splits:
            what = f"class {labels.names[index]!r} never occurs in {', '.join(splits)}"
            remedy = "It cannot be learned without train pixels, nor scored without any; check the class list."
            findings.append(Finding("warning", "empty-class", (), what, remedy))
    return findings


def judge_validation(num_samples: Mapping[str, int]) -> list[Finding]:
    """A validation split of so few images that a score on it would have a 95 % interval wider than `WIDE`.

    Before there is a model this is an estimate, see `SPREAD`: fewer than 13 images. A run's scores have the interval.
    """
    number = num_samples.get("validation", 0)
    doubt = 1.0 if number == 1 else half_width(SPREAD / math.sqrt(number), number) if number else 0.0
    if 2 * doubt <= WIDE:
        return []
    images = "1 image chooses" if number == 1 else f"{number} images choose"
    what = f"{images} checkpoint and temperature: a mean IoU of so few is known to about +-{doubt:.2f}"
    remedy = "Label more for validation, 13 at least. Until then, other checkpoints may be as good."
    return [Finding("warning", "small-validation", (), what, remedy)]
