"""The label doctor: looks at every image and mask of a data set and lists all faults, not only the first."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hfseg.config import DataConfig
from hfseg.data import (
    DEEP_MODES,
    Pair,
    Source,
    allow_pixels,
    cache_folder,
    file_of_cell,
    find_source,
    load_dataset,
    num_cores,
    undecoded,
)
from hfseg.doctor.class_counts import count_classes, judge_classes, judge_validation
from hfseg.doctor.diagnosis import diagnose_masks
from hfseg.doctor.duplicates import find_duplicates
from hfseg.doctor.findings import Finding, Report
from hfseg.doctor.inspection import RESTORE, File, Inspection, Sample, decode, inspect
from hfseg.doctor.tiles import choose_tiles, load_tile
from hfseg.errors import UserError
from hfseg.labels import LabelSet

QUICK_SAMPLES = 300
TASK = 16  # samples: a future for each one of a large data set takes more memory than what is kept of it


def check_data(config: DataConfig, quick: bool = False) -> Report:
    """Checks a data set as `--check` does.

    Args:
        config: which one and from where.
        quick: look at a few hundred masks only and decode no image: seconds for any data set.

    Returns:
        Everything that was found. `report.raise_errors()` turns errors into a UserError.

    Raises:
        UserError: there is no data set to look at, or it streams by.
    """
    if config.streaming:
        raise UserError("data.streaming=true: a stream cannot be checked. Set data.streaming=false for the check.")
    allow_pixels(config.max_pixels)
    if config.name == "hub":
        data, labels = load_dataset(config)
        return check_rows(data, labels, config.name, quick)
    return check_source(find_source(config, cache_folder()), quick)


def check_run_data(config: DataConfig, quick: bool = False) -> Report:
    """`check_data` for a training, which also has to choose a checkpoint: are there enough validation images?"""
    report = check_data(config, quick)
    return replace(report, findings=[*report.findings, *judge_validation(report.num_samples)])


def check_source(source: Source, quick: bool = False) -> Report:
    """Checks a data set of files; see `check_data`."""
    pairs = [(split, pair) for split, members in source.splits.items() for pair in members]
    chosen = spread(pairs, QUICK_SAMPLES) if quick else pairs
    samples = [partial(sample_of_pair, split, pair, source.read_ids) for split, pair in chosen]
    findings = [*judge_names(source), *judge_unpaired(source)]
    if len(chosen) < len(pairs):
        findings += missing_files({pair for _, pair in pairs} - {pair for _, pair in chosen})
    sizes = {split: len(members) for split, members in source.splits.items()}
    return examine(source.name, str(source.root), source.labels, sizes, samples, findings, quick)


def check_rows(
    data: Mapping[str, datasets.Dataset], labels: LabelSet, name: str = "rows", quick: bool = False
) -> Report:
    """Checks rows with columns `image`, `label` and `name`, as `load_dataset` returns them; see `check_data`."""
    encoded = {split: undecoded(rows) for split, rows in data.items()}
    places = [(split, index) for split, rows in encoded.items() for index in range(len(rows))]
    samples = [
        partial(sample_of_row, split, encoded[split], index)
        for split, index in (spread(places, QUICK_SAMPLES) if quick else places)
    ]
    sizes = {split: len(rows) for split, rows in encoded.items()}
    return examine(name, "", labels, sizes, samples, [], quick)


def examine(
    name: str,
    root: str,
    labels: LabelSet,
    sizes: dict[str, int],
    samples: Sequence[Callable[[], Sample]],
    findings: list[Finding],
    quick: bool,
) -> Report:
    """Looks at all samples, then at what only all of them together can tell."""
    inspections = walk(samples, labels, quick)
    faulty = diagnose_masks(inspections, labels)
    findings = [*findings, *(each for found in inspections for each in found.findings), *faulty]
    findings += judge_modes(inspections)
    findings += judge_frames(inspections)
    pixels, images = count_classes(inspections, labels)
    complete = len(samples) == sum(sizes.values())
    if complete and 2 * len(faulty) <= len(inspections):  # otherwise the classes' absence is only a consequence
        findings += judge_classes(pixels, labels)
    if not quick:
        findings += find_duplicates(inspections)
    findings.sort(key=lambda finding: finding.severity)
    tiles = {} if quick else choose_tiles(findings, inspections)
    return Report(
        name=name,
        root=root,
        labels=labels,
        num_samples=sizes,
        num_checked=len(inspections),
        pixels=pixels,
        images=images,
        findings=findings,
        tiles=[load_tile(samples[index], faults) for index, faults in tiles.items()],
    )


def walk(samples: Sequence[Callable[[], Sample]], labels: LabelSet, quick: bool) -> list[Inspection]:
    """Inspects in threads, some samples in each task: decoding and resizing run outside Python's lock.

    Processes are no faster here, and starting them would cost seconds or a fork of a process that has threads.
    """

    def task(start: int) -> list[Inspection]:
        return [inspect(make_sample(), labels, quick) for make_sample in samples[start : start + TASK]]

    pool = ThreadPoolExecutor(num_cores())
    try:
        results = chain.from_iterable(pool.map(task, range(0, len(samples), TASK)))
        console = Console(stderr=True)
        return list(track(results, "checking", total=len(samples), console=console, transient=True, disable=quick))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, what has not begun


def spread(items: Sequence[Any], number: int) -> list[Any]:
    """At most so many items, evenly from all."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(number, len(items)))]


def sample_of_pair(split: str, pair: Pair, read_ids: Callable[[Any], NDArray[np.integer]]) -> Sample:
    mask_name = "" if pair.mask is None else str(pair.mask)
    return Sample(split, pair.name, pair.image, pair.mask, str(pair.image), mask_name, read_ids)


def sample_of_row(split: str, rows: datasets.Dataset, index: int) -> Sample:
    row = rows[index]
    where = f"{split}/{row['name']}"
    image, mask = file_of_cell(row["image"]), file_of_cell(row["label"])
    return Sample(split, row["name"], image or b"", mask, f"{where} (image)", f"{where} (label)", read_plain_ids)


def read_plain_ids(file: File) -> NDArray[np.integer]:
    """Ids (H, W) as they stand."""
    ids = decode(file)
    if ids.ndim != 2 or ids.dtype.kind not in "ui":
        raise UserError(f"the label holds {ids.dtype} of shape {ids.shape}, not one integer for each pixel")
    return ids


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


def judge_modes(inspections: Iterable[Inspection]) -> list[Finding]:
    """Images that are not RGB, one finding for each mode."""
    modes: dict[str, list[str]] = defaultdict(list)
    for found in inspections:
        if found.image is not None and found.image.mode not in ("RGB", *DEEP_MODES):
            modes[found.image.mode].append(found.image_name)
    remedy = "Nothing, if that is what they are; transparency is dropped."
    return [
        Finding("warning", "image-mode", tuple(files), f"{len(files)} images are {mode} and read as RGB", remedy)
        for mode, files in modes.items()
    ]


def judge_frames(inspections: Iterable[Inspection]) -> list[Finding]:
    """Images of more than one frame, of which the others are left out."""
    files = tuple(found.image_name for found in inspections if found.has_more_frames)
    what = f"{len(files)} images have more than one frame or page; the first is read"
    remedy = "Nothing, if it is the one that the mask belongs to."
    return [Finding("warning", "more-frames", files, what, remedy)] if files else []
