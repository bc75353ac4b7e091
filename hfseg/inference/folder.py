"""predict_images(...): a folder of images to masks, overlays and class shares, by any number of processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from hfseg.data import allow_pixels, file_state, has_more_frames, num_cores, open_header, reading
from hfseg.errors import UserError, printable
from hfseg.files import locked
from hfseg.inference.image_paths import Found, find_images
from hfseg.inference.predict import read_image
from hfseg.inference.prediction_files import PredictionFolder
from hfseg.inference.predictor import Predictor, Prepared, Segmentation
from hfseg.inference.run_predictor import load_predictor, parse_overrides
from hfseg.labels import LabelSet

NUM_NAMED = 5  # of the images that were skipped; each has been named when it was its turn
# A photo of 384 pixels takes 5 ms to decode, resize and write, for which a GPU is not to wait; on a CPU, whose cores
# the model keeps busy, threads were measured neither to help nor to hurt.
NUM_THREADS = min(8, num_cores())
WAIT = timedelta(days=7)  # for the slowest process
# name, file and RGB
Loaded: TypeAlias = tuple[str, Path, Image.Image, Prepared]
Segmented: TypeAlias = tuple[str, Path, Image.Image, Segmentation]
Item = TypeVar("Item")
Result = TypeVar("Result")


def predict_images(
    images: str | Path | Sequence[str | Path],
    model: str,
    output: str | Path,
    overrides: Sequence[str] = (),
    batch_size: int = 8,
    trust_remote_code: bool = False,
) -> Path:
    """Segments files into files. Started again after any interruption, it does what is left.

    Under `accelerate launch` or torchrun each process takes its share of the images that are left.

    Args:
        images: a folder, a glob, a `.txt` file with a path a line, an image, or several of these; see `find_images`
            for what each image is called. Pictures of earlier predictions among them are left out.
        model: a folder (of a run, or with a model) or a Hub id.
        output: the folder to write `masks/`, `colours/`, `overlays/` and `predictions.jsonl` into.
        overrides: `data.max_pixels=400000000` for images larger than Pillow's limit; and `eval.` keys, such as
            `eval.flip=true`; by default images are shown to the model as in the evaluation of its run, whose config
            lies beside it, and otherwise as the model's image processor says.
        batch_size: images per forward pass; `whole` and `slide` take them one by one.
        trust_remote_code: run the code that comes with the model, if there is some.

    Returns:
        `predictions.jsonl`, a line for each image: `name`, `file` and its `file_state` (bytes and time of change),
        `width`, `height`, `shares` (of the pixels, by class) and `confidence` (the mean over pixels of the calibrated
        probability of the class chosen).

    Raises:
        UserError: no such images or model, another model's folder, no room; or, after all others are done, files that
            are images by their names and could not be read or, at their own size, not be segmented.
    """
    if batch_size < 1:
        raise UserError(f"--batch-size {batch_size}: at least one image at a time.")
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=WAIT)
    output = Path(output).expanduser()
    max_pixels, changes = parse_overrides(overrides)
    allow_pixels(max_pixels)
    found = find_images([images] if isinstance(images, str | Path) else images)
    predictor, labels, settings = load_predictor(model, changes, state.device, trust_remote_code)
    folder = PredictionFolder(output, labels)
    share = Share(predictor, folder, 1 if predictor.is_native else batch_size)
    with locked(output, "--output") if state.is_main_process else nullcontext():
        if state.is_main_process:
            folder.prepare(settings, found.images)
            print_left_out(found)
        state.wait_for_everyone()
        finished = folder.finished()
        todo = [entry for entry in found.images.items() if entry[0] not in finished]
        mine = todo[state.process_index :: state.num_processes]
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        console = Console(stderr=True, force_jupyter=False)  # whose bar needs a package more
        with Progress(*columns, console=console, disable=not state.is_main_process) as bar:
            for line in bar.track(share.segment(mine), total=len(mine), description="Segmenting"):
                folder.append(state.process_index, line)
        problems = found.problems + gather_object(share.problems)  # waits for every process
        with_frames = gather_object(share.with_frames)
        if state.is_main_process:
            if with_frames:
                say(
                    f"of {len(with_frames)} files with several frames or pages the first was taken, such as "
                    f"{min(with_frames)}"
                )
            print_shares(folder.merge(), labels, output)
        state.wait_for_everyone()
    if problems:
        reasons = [*problems[:NUM_NAMED], *(["..."] if len(problems) > NUM_NAMED else [])]
        raise UserError(
            f"{len(problems)} of {len(found.images) + len(found.problems)} images could not be segmented; all others "
            f"are in {output}. Mend them or leave them out, and start again.\n  " + "\n  ".join(reasons)
        )
    return output / "predictions.jsonl"


def say(message: str) -> None:
    """One line on stderr, above a progress bar; file names in it are shown as they are, but for control characters."""
    Console(stderr=True).print(printable(message), markup=False, highlight=False, soft_wrap=True)


def print_left_out(found: Found) -> None:
    """What was found among the images and is none of them."""
    for problem in found.problems:
        say(f"skipped: {problem}")
    if found.outputs:
        say(f"left out: the pictures of earlier predictions in {', '.join(map(str, sorted(found.outputs)))}")
    if found.others:
        say(f"left out: {len(found.others)} files that are no images by their names, such as {min(found.others)}")


@dataclass(frozen=True)
class Share:
    """The images of one process.

    Threads decode and resize the images ahead and write the pictures behind, while the model is at work; there are
    never more than two batches of each, however many images there are.

    Attributes:
        predictor: the model.
        folder: what to write into.
        batch_size: images per forward pass.
        problems: a message for each image that cannot be read, or whose own size the model does not take.
        with_frames: the path of each file that holds more than the one image that is taken.
    """

    predictor: Predictor
    folder: PredictionFolder
    batch_size: int
    problems: list[str] = field(default_factory=list)
    with_frames: list[str] = field(default_factory=list)

    def segment(self, images: Sequence[tuple[str, Path]]) -> Iterator[dict[str, Any]]:
        """Segments images, given by name and path, and gives the line of each whose pictures are written."""
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            loaded = in_background(pool, self._load, images, 2 * self.batch_size)
            yield from in_background(pool, self._write, self._batches(self._readable(loaded)), 2 * self.batch_size)

    def _load(self, image: tuple[str, Path]) -> Loaded | str:
        name, path = image
        try:
            picture = read_image(path)
            with reading(path), open_header(path) as header:
                if has_more_frames(header):
                    self.with_frames.append(str(path))
        except UserError as error:
            return str(error)
        return name, path, picture, self.predictor.prepare(picture)

    def _readable(self, loaded: Iterable[Loaded | str]) -> Iterator[Loaded]:
        for each in loaded:
            if isinstance(each, str):
                self._skip(each)
            else:
                yield each

    def _skip(self, problem: str) -> None:
        self.problems.append(problem)
        say(f"skipped: {problem}")

    def _batches(self, loaded: Iterator[Loaded]) -> Iterator[Segmented]:
        while batch := list(islice(loaded, self.batch_size)):
            found = self.predictor.segment([prepared for *_, prepared in batch], confidence=True)
            try:
                for (name, path, picture, _), segmentation in zip(batch, found, strict=True):
                    yield name, path, picture, segmentation
            except UserError as error:
                if not self.predictor.is_native:
                    raise
                self._skip(f"{batch[0][1]}: {error}")  # it was alone

    def _write(self, found: Segmented) -> dict[str, Any]:
        name, path, picture, segmentation = found
        self.folder.write(name, picture, segmentation.ids)
        shares = (segmentation.num_pixels / segmentation.ids.size).tolist()
        return {
            "name": name,
            "file": str(path),
            "file_state": list(file_state(path)),
            "width": picture.width,
            "height": picture.height,
            "shares": {label: round(share, 9) for label, share in zip(self.folder.labels.names, shares, strict=True)},
            "confidence": round(segmentation.confidence, 4),
        }


def in_background(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """As `map`, with up to `ahead` calls under way or waiting for the caller."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def print_shares(lines: Iterable[Mapping[str, Any]], labels: LabelSet, output: Path) -> None:
    """The table at the end: how much of all pixels each class has, and in how many images it is."""
    num_images, num_pixels, confidence = 0, 0, 0.0
    pixels, presence = np.zeros(labels.num_labels), np.zeros(labels.num_labels, dtype=int)
    for line in lines:
        shares = np.array([line["shares"][name] for name in labels.names])
        size = line["width"] * line["height"]
        pixels += shares * size
        presence += shares > 0
        num_images, num_pixels, confidence = num_images + 1, num_pixels + size, confidence + line["confidence"]
    # as texts: brackets in a name are no markup
    title = Text(f"{num_images} images in {output}", style="table.title")
    table = Table(title=title, caption=f"mean confidence {confidence / max(num_images, 1):.4f}")
    table.add_column("class")
    table.add_column("share of all pixels", justify="right")
    table.add_column("images with it", justify="right")
    for index in np.argsort(-pixels, kind="stable"):
        share = pixels[index] / max(num_pixels, 1)
        table.add_row(Text(labels.names[index]), f"{share:.2%}", str(presence[index]))
    Console().print(table)
