"""What all masks of a data set tell together: values that are no class ids, and classes that are missing."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hfseg.data import list_greys, looks_grey, place_ids
from hfseg.doctor.findings import Finding
from hfseg.doctor.inspection import Inspection
from hfseg.labels import LabelSet
from hfseg.metrics import WIDE, half_width

MAX_VALUES = 8  # named in a finding
MIN_EDGE_VALUES = 3  # a thin object is one value or two
LOSSY = ("JPEG", "JPEG2000", "MPO", "WEBP", "AVIF")
# What `convert("L")` makes of the palette of PASCAL VOC, which most palette masks carry.
VOC_GREYS = {15, 19, 34, 38, 52, 53, 57, 72, 75, 76, 90, 94, 109, 113, 128, 133, 147, 151}
WHITE = 255
MIXED_UP = "Correct the mask as it is said of it, or read it with the data.name that it belongs to."
MAX_IGNORED = 0.5
# The standard deviation of the mean IoU over N images is about SPREAD / sqrt(N). In the runs of `model_cards` it is
# 0.05 to 0.16; models that have learnt something have the larger ones.
SPREAD = 0.16


def diagnose_masks(inspections: Sequence[Inspection], labels: LabelSet) -> list[Finding]:
    """One error for each mask with values that are no class; the same one for all where all are coded alike."""
    readable = [found for found in inspections if found.values]
    present = {value for found in readable for value in found.values} - {labels.ignore_index}
    all_refused = all(found.refused for found in readable)
    findings = [
        diagnose_mask(found, present, all_refused, labels)
        for found in inspections
        if found.refused or unknown_values(found, labels)
    ]
    return [*findings, *black_and_white(readable, present, labels), *compare_palettes(inspections)]


def unknown_values(found: Inspection, labels: LabelSet) -> dict[int, int]:
    """Value -> pixels of the values that are no class and not ignored."""
    known = {*range(labels.num_labels), labels.ignore_index}
    return {value: count for value, count in found.values.items() if value not in known}


def diagnose_mask(found: Inspection, present: set[int], all_refused: bool, labels: LabelSet) -> Finding:
    """Why this mask cannot be used. `present` are the values of all masks."""
    unknown = unknown_values(found, labels)
    what = found.refused or f"ids {list_values(unknown)} are no class: these are 0..{labels.num_labels - 1}"
    fault, remedy = (
        diagnose_storage(found, set(unknown))
        or diagnose_values(found, present, labels)
        or diagnose_ids(found, present, all_refused, labels)
    )
    return Finding("error", fault, (found.mask_name,), what.removesuffix(remedy).rstrip(". "), remedy)


def diagnose_storage(found: Inspection, suspects: set[int]) -> tuple[str, str] | None:
    """Fault and remedy where a mask's pixels are no ids at all, or were ids before they were saved."""
    assert found.mask is not None
    if found.mask.format in LOSSY:
        return "lossy-mask", (
            f"{found.mask.format} changes ids at every edge. Export the masks again as PNG from their source."
        )
    if not found.values:
        return "colour-mask", (
            f"The mask is stored as {found.mask.mode}, not as one integer for each pixel. Give the colour of each "
            "class with the class list, or convert the masks to ids."
        )
    if len(found.edge_values & suspects) >= MIN_EDGE_VALUES:
        return "interpolated-mask", (
            "The mask was resized or drawn with smooth edges. Make it again with the nearest neighbour and no "
            "anti-aliasing."
        )
    return None


def diagnose_values(found: Inspection, present: set[int], labels: LabelSet) -> tuple[str, str] | None:
    """Fault and remedy where clean regions hold greys instead of ids."""
    values = set(found.values) - {labels.ignore_index}
    unknown = values - set(range(labels.num_labels))
    if labels.ignore_index == WHITE and WHITE in found.values and present <= {0}:
        return "grey-mask", black_and_white_remedy(labels)
    if len(unknown) > 1 and unknown <= VOC_GREYS:
        return "grey-mask", (
            "These are the greys of the PASCAL VOC palette: palette masks were converted to greys. Use the original "
            "palette PNGs, whose indexes are the ids."
        )
    if looks_grey(present, 2, labels.num_labels) or looks_grey(values, 3, labels.num_labels):
        greys = list_greys(present | ({WHITE} & found.values.keys()), labels)
        return "grey-mask", f"The masks are grey pictures of the classes, made to be looked at. {greys}"
    return None


def diagnose_ids(found: Inspection, present: set[int], all_refused: bool, labels: LabelSet) -> tuple[str, str]:
    """Fault and remedy where a mask holds ids, but not those of the class list.

    Values of refused masks are as stored; those of others went through `read_ids`. Only where that leaves them as they
    are, or where all masks are refused, do they make one picture.
    """
    num_labels = labels.num_labels
    unknown = present - set(range(num_labels))
    if min(present, default=0) == 1 and max(present) == num_labels:
        return "off-by-one", (
            f"The ids run from 1 to {num_labels} instead of from 0: set data.reduce_labels=true where the data set "
            "has it; Oxford trimaps (1, 2, 3) need data.name=oxford_pet."
        )
    if not unknown and all_refused:
        return "other-coding", f"{MIXED_UP} The masks hold class ids from 0 already, which data.name=folder reads."
    remedy = place_ids(unknown_values(found, labels), found.values, labels)
    # What was refused for how it is stored holds other values than Pillow shows
    return "ids-outside", MIXED_UP if found.refused and not found.refused.endswith(remedy) else remedy


def black_and_white(readable: Iterable[Inspection], present: set[int], labels: LabelSet) -> list[Finding]:
    """Masks of 0 and 255 that `read_ids` took: the white class would count as ignored, and nothing would say so."""
    white = [found for found in readable if labels.ignore_index in found.values and not found.refused]
    if present != {0} or labels.ignore_index != WHITE:
        return []
    what = f"only 0 and {labels.ignore_index} occur in the masks, and {labels.ignore_index} is the ignore index"
    return [Finding("error", "grey-mask", (found.mask_name,), what, black_and_white_remedy(labels)) for found in white]


def black_and_white_remedy(labels: LabelSet) -> str:
    return f"255 does not count. If white is a class: {list_greys({0, WHITE}, labels)}"


def compare_palettes(inspections: Iterable[Inspection]) -> list[Finding]:
    """Palette masks whose indexes mean different colours in different files, as re-saved ones do."""
    colours: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
    masks = [found for found in inspections if found.palette]
    for found in masks:
        for index, colour in found.palette.items():
            colours[index][colour] += 1
    usual = {index: counts.most_common(1)[0][0] for index, counts in colours.items()}
    findings = []
    for found in masks:
        unusual = [index for index, colour in found.palette.items() if colour != usual[index]]
        if unusual:
            index = unusual[0]
            what = f"index {index} has colour {found.palette[index]}, but {usual[index]} in most masks"
            remedy = "If the colours are the classes, convert the masks to one palette: their indexes are read as ids."
            findings.append(Finding("warning", "palette-differs", (found.mask_name,), what, remedy))
    return findings


def list_values(counts: dict[int, int]) -> str:
    """{17: 3} -> "17 (3 px)" """
    listed = ", ".join(f"{value} ({count} px)" for value, count in list(counts.items())[:MAX_VALUES])
    return listed + (f" and {len(counts) - MAX_VALUES} more" if len(counts) > MAX_VALUES else "")


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
