"""Faults of a data set's files: names that repeat, files without a partner, missing files, odd image formats."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hfseg.data import DEEP_MODES, Pair, Source
from hfseg.doctor.findings import Finding
from hfseg.doctor.inspection import RESTORE, Inspection


def judge_names(source: Source) -> list[Finding]:
    """Empty splits, and samples in two splits or twice in one."""
    findings = [
        Finding("error", "empty-split", (), f"the {split} split is empty", "Add samples to it.")
        for split, pairs in source.splits.items()
        if not pairs
    ]
    places: dict[str, list[str]] = defaultdict(list)
    images: dict[str, list[str]] = defaultdict(list)
    for split, pairs in source.splits.items():
        for pair in pairs:
            places[pair.name].append(split)
            images[pair.name].append(str(pair.image))
    remedy = "A sample belongs to one split, once: take it out of the others."
    return findings + [
        Finding("error", "repeated-name", tuple(dict.fromkeys(images[name])), f"listed in {', '.join(splits)}", remedy)
        for name, splits in places.items()
        if len(splits) > 1
    ]


def judge_unpaired(source: Source) -> list[Finding]:
    """Masks without an image and images without a mask; which of the two, the folders tell."""
    pairs = [pair for members in source.splits.values() for pair in members]
    inspected = {pair.image for pair in pairs}
    image_folders = {pair.image.parent for pair in pairs}
    mask_folders = {pair.mask.parent for pair in pairs if pair.mask}
    findings = []
    for path in sorted(set(source.unpaired) - inspected):
        what = "has no partner and is left out"
        if path.parent in image_folders - mask_folders:
            what = "image without a mask, left out"
        elif path.parent in mask_folders - image_folders:
            what = "mask without an image, left out"
        findings.append(Finding("warning", "stray", (str(path),), what, "Add the missing half, or remove the file."))
    remedy = "If it is an image or a mask, save it as PNG; otherwise it can stay."
    return findings + [
        Finding("warning", "unread", (str(path),), "no image file by its suffix, left out", remedy)
        for path in source.other_files
    ]


def missing_files(pairs: Iterable[Pair]) -> list[Finding]:
    files = [path for pair in pairs for path in (pair.image, pair.mask) if path and not path.exists()]
    return [Finding("error", "missing-file", (str(path),), "the file is missing", RESTORE) for path in sorted(files)]


def judge_formats(inspections: Sequence[Inspection]) -> list[Finding]:
    """Images that are not RGB, one finding for each mode, and images of more than one frame."""
    modes: dict[str, list[str]] = defaultdict(list)
    for found in inspections:
        if found.image is not None and found.image.mode not in ("RGB", *DEEP_MODES):
            modes[found.image.mode].append(found.image_name)
    remedy = "Nothing, if that is what they are; transparency is dropped."
    findings = [
        Finding("warning", "image-mode", tuple(files), f"{len(files)} images are {mode} and read as RGB", remedy)
        for mode, files in modes.items()
    ]
    files = tuple(found.image_name for found in inspections if found.has_more_frames)
    if files:
        what = f"{len(files)} images have more than one frame or page; the first is read"
        remedy = "Nothing, if it is the one that the mask belongs to."
        findings.append(Finding("warning", "more-frames", files, what, remedy))
    return findings
