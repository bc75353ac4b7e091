"""The label doctor: looks at every image and mask of a data set and lists all faults, not only the first."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from hfseg.config import DataConfig, RunConfig
from hfseg.console import say, track
from hfseg.data import (
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
from hfseg.doctor.contact_sheet import choose_tiles, load_tile, plot_class_distribution, plot_contact_sheet
from hfseg.doctor.diagnosis import count_classes, diagnose_masks, judge_classes, judge_validation
from hfseg.doctor.duplicates import find_duplicates
from hfseg.doctor.file_faults import judge_formats, judge_names, judge_unpaired, missing_files
from hfseg.doctor.findings import Finding, Report
from hfseg.doctor.inspection import File, Inspection, Sample, decode, inspect, spread
from hfseg.errors import UserError
from hfseg.files import writing
from hfseg.labels import LabelSet

QUICK_SAMPLES = 300
TASK = 16  # samples: a future for each one of a large data set takes more memory than what is kept of it


def check(config: RunConfig) -> Report:
    """Looks for mistakes in the data set of a run; prints them, and writes and draws them into `output_dir`/check.

    Returns:
        The report; its `raise_errors` stops where a training could not start.

    Raises:
        UserError: there is no data to look at, or the folder cannot be written.
    """
    folder = config.output_dir / "check"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    report = check_run_data(config.data)
    report.save(folder / "check.json")
    shares = {split: report.shares(split) for split in report.pixels}
    plot_class_distribution(shares, report.class_names, report.labels, folder / "class_distribution.png")
    plot_contact_sheet(report.tiles, report.labels, f"{report.name}: {report.summary}", folder / "check.png")
    report.print(Console())
    say(f"{folder}: check.json, check.png, class_distribution.png")
    return report


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
    findings += judge_formats(inspections)
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
        return list(track(results, "checking images and masks", len(samples)))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C, what has not begun


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
