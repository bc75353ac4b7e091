"""Pixels of each class in each split, and what their absence means."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hfseg.data.findings import Finding
from hfseg.data.inspection import Inspection
from hfseg.labels import LabelSet

MAX_IGNORED = 0.5


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
            index = labels.num_labels if value == labels.ignore_index else value
            if index <= labels.num_labels and value != labels.num_labels:
                pixels[found.split][index] += count
                images[found.split][index] += 1
    return pixels, images


def judge_classes(pixels: Mapping[str, NDArray[np.int64]], labels: LabelSet) -> list[Finding]:
    """Classes that never occur and splits that are mostly ignored. Meant for counts of all of the data."""
    findings = []
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
        splits = [split for split, counts in pixels.items() if not counts[index]]
        if splits:
            what = f"class {labels.names[index]!r} never occurs in {', '.join(splits)}"
            remedy = "It cannot be learned without train pixels, nor scored without any; check the class list."
            findings.append(Finding("warning", "empty-class", (), what, remedy))
    return findings
