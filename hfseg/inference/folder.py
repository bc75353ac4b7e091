"""predict_images(...): a folder of images to masks, overlays and class shares, by any number of processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from hfseg.data import allow_pixels, file_state, has_more_frames, num_cores, open_header, reading
from hfseg.errors import UserError, printable
from hfseg.files import locked
from hfseg.inference.image_paths import Found, find_images
from hfseg.inference.predict import PixelRows, read_image
from hfseg.inference.prediction_files import PredictionFolder
from hfseg.inference.predictor import Predictor, load_predictor, segment
from hfseg.inference.view import take_max_pixels
from hfseg.labels import LabelSet

NUM_NAMED = 5  # of the images that were skipped; each has been named when it was its turn
# A photo of 384 pixels takes 5 ms to decode, resize and write, for which a GPU is not to wait; on a CPU, whose cores
# the model keeps busy, threads were measured neither to help nor to hurt.
NUM_THREADS = min(8, num_cores())
WAIT = timedelta(days=7)  # for the slowest process
# name, file, RGB, and pixel values (1, 3, h, w) or, for windows, as they are read
Loaded: TypeAlias = tuple[str, Path, Image.Image, torch.Tensor | PixelRows]
Segmented: TypeAlias = tuple[str, Path, Image.Image, NDArray[Any], float]  # name, file, RGB, ids (H, W), confidence
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
            `eval.flip=true`; by default images are looked at as in the evaluation of the model's run, whose config
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
    max_pixels, overrides = take_max_pixels(overrides)
    allow_pixels(max_pixels)
    found = find_images([images] if isinstance(images, str | Path) else images)
    named = found.images
    predictor = load_predictor(model, overrides, state.device, trust_remote_code)
    files = PredictionFolder(output, predictor.labels)
    with locked(output, "--output") if state.is_main_process else nullcontext():
        if state.is_main_process:
            files.prepare(predictor.settings, named)
            print_left_out(found)
        state.wait_for_everyone()
        finished = files.finished()
        todo = [(name, path) for name, path in named.items() if name not in finished]
        share = todo[state.process_index :: state.num_processes]
        unreadable: list[str] = []
        cut: list[str] = []
        with progress_bar(state, len(named) - len(todo), len(named)) as bar:
            for line in predict_share(predictor, files, share, batch_size, unreadable, cut):
                files.append(state.process_index, line)
                bar.advance(bar.task_ids[0], state.num_processes)
            bar.update(bar.task_ids[0], completed=len(named))
        unreadable = found.problems + gather_object(unreadable)  # waits for every process
        cut = gather_object(cut)
        if state.is_main_process:
            if cut:
                say(f"of {len(cut)} files with several frames or pages the first was taken, such as {min(cut)}")
            print_shares(files.merge(), predictor.labels, output)
        state.wait_for_everyone()
    raise_unreadable(unreadable, len(named) + len(found.problems), output)
    return output / "predictions.jsonl"


def raise_unreadable(problems: Sequence[str], total: int, output: Path) -> None:
    """Raises UserError where there are problems, with the first of them; all others of the `total` images are done."""
    if problems:
        reasons = [*problems[:NUM_NAMED], *(["..."] if len(problems) > NUM_NAMED else [])]
        raise UserError(
            f"{len(problems)} of {total} images could not be segmented; all others are in {output}. Mend them or "
            "leave them out, and start again.\n  " + "\n  ".join(reasons)
        )


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


class Rate(ProgressColumn):
    """Images per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} images/s")


def progress_bar(state: PartialState, num_finished: int, num_images: int) -> Progress:
    """Shown by one process, for all of them."""
    columns = (BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(elapsed_when_finished=True))
    bar = Progress(*columns, console=Console(stderr=True), disable=not state.is_main_process)
    bar.add_task("predict", completed=num_finished, total=num_images)
    return bar


def predict_share(
    predictor: Predictor,
    files: PredictionFolder,
    share: Sequence[tuple[str, Path]],
    batch_size: int,
    unreadable: list[str],
    cut: list[str],
) -> Iterator[dict[str, Any]]:
    """Predicts the images of one process, and writes their pictures.

    Threads decode and resize the images ahead and write the pictures behind, while the model is at work; there are
    never more than two batches of each, however many images there are.

    Args:
        predictor: the model.
        files: what to write into.
        share: names and paths.
        batch_size: images per forward pass.
        unreadable: gets a message for each image that cannot be read, or whose own size the model does not take.
        cut: gets the path of each file that holds more than the one image that is taken.

    Yields:
        The line of each image whose pictures are written.
    """
    batch_size = 1 if predictor.view.is_native else batch_size

    def load(entry: tuple[str, Path]) -> Loaded | str:
        name, path = entry
        try:
            image = read_image(path)
            with reading(path), open_header(path) as header:
                if has_more_frames(header):
                    cut.append(str(path))
        except UserError as error:
            return str(error)
        if predictor.view.mode == "slide":
            return name, path, image, PixelRows(image, predictor.processor, predictor.device, torch.float32)
        return name, path, image, predictor.processor(images=[image], return_tensors="pt")["pixel_values"]

    def write(found: Segmented) -> dict[str, Any]:
        name, path, image, ids, confidence = found
        files.write(name, image, ids)
        return line_of(name, path, ids, confidence, predictor.labels)

    def readable(loaded: Iterable[Loaded | str]) -> Iterator[Loaded]:
        for entry in loaded:
            if isinstance(entry, str):
                skip(entry)
            else:
                yield entry

    def skip(problem: str) -> None:
        unreadable.append(problem)
        say(f"skipped: {problem}")

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        loaded = readable(in_background(pool, load, share, 2 * batch_size))
        segmented = segment_batches(predictor, loaded, batch_size, skip)
        yield from in_background(pool, write, segmented, 2 * batch_size)


def segment_batches(
    predictor: Predictor, loaded: Iterator[Loaded], batch_size: int, skip: Callable[[str], None]
) -> Iterator[Segmented]:
    """Segments the images; `skip` is told of one whose own size the model does not take."""
    while batch := list(islice(loaded, batch_size)):
        rows = [pixels for *_, pixels in batch if isinstance(pixels, PixelRows)]
        pixel_values = rows or torch.cat([pixels for *_, pixels in batch if isinstance(pixels, torch.Tensor)])
        predicted = segment(predictor, pixel_values, [(image.height, image.width) for _, _, image, _ in batch])
        try:
            for (name, path, image, _), (ids, confidence) in zip(batch, predicted, strict=True):
                yield name, path, image, ids, confidence
        except UserError as error:
            if not predictor.view.is_native:
                raise
            skip(f"{batch[0][1]}: {error}")  # it was alone


def in_background(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """As `map`, with up to `ahead` calls under way or waiting to be looked at."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def line_of(name: str, path: Path, ids: NDArray[Any], confidence: float, labels: LabelSet) -> dict[str, Any]:
    # row by row: bincount makes 8 bytes of each id
    pixels = np.sum([np.bincount(row, minlength=labels.num_labels) for row in ids], axis=0)
    return {
        "name": name,
        "file": str(path),
        "file_state": list(file_state(path)),
        "width": ids.shape[1],
        "height": ids.shape[0],
        "shares": {
            label: round(float(share), 9) for label, share in zip(labels.names, pixels / ids.size, strict=True)
        },
        "confidence": round(confidence, 4),
    }


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
    mean = confidence / max(num_images, 1)
    # as texts: brackets in a name are no markup
    table = Table(
        title=Text(f"{num_images} images in {output}", style="table.title"), caption=f"mean confidence {mean:.4f}"
    )
    table.add_column("class")
    table.add_column("share of all pixels", justify="right")
    table.add_column("images with it", justify="right")
    for index in np.argsort(-pixels, kind="stable"):
        share = pixels[index] / max(num_pixels, 1)
        table.add_row(Text(labels.names[index]), f"{share:.2%}", str(presence[index]))
    Console().print(table)
