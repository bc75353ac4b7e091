"""The folder of predictions: masks, colours, overlays and a line for each image, complete or not there."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data import file_state
from hfseg.errors import UserError, WriteError
from hfseg.files import LEFTOVERS, remove_leftovers, write_json, writing, written_whole
from hfseg.inference.image_paths import PICTURES, PREDICTIONS
from hfseg.labels import OVERLAY, LabelSet

SETTINGS, PARTS = "settings.json", ".parts"
KEYS = {"name", "file", "file_state", "width", "height", "shares", "confidence"}  # of a line
SUFFIXES = dict(zip(PICTURES, (".png", ".png", ".jpg"), strict=True))
SAVING: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 3},
    ".jpg": {"format": "JPEG", "quality": 90},
}
BAND = 512  # rows that are blended at a time


class PredictionFolder:
    """Written by one or several processes; whatever stops them, an image with a line is finished and stays so.

    Each process appends its lines to a part of its own. `prepare` and `merge`, by one process while the others wait,
    bring them into `predictions.jsonl`, in the order of the names.

    Args:
        root: the folder.
        labels: of the model; its colours.
    """

    def __init__(self, root: Path, labels: LabelSet) -> None:
        self.root, self.labels = root, labels
        self.palette = np.asarray(labels.palette, dtype=np.uint8)  # (K, 3)

    def prepare(self, settings: Mapping[str, Any], images: Mapping[str, Path]) -> None:
        """Takes the folder into use: afterwards `predictions.jsonl` has the finished images and nothing else has any.

        Args:
            settings: what its predictions depend on; `model` is a name only, and may differ.
            images: all that are to be predicted, by name.

        Raises:
            UserError: the folder holds something else, predictions by other settings, or one of another image.
        """
        path = self.root / SETTINGS
        if path.is_file():
            self._check_settings(path, settings)
        elif taken := [name for name in (*SUFFIXES, PREDICTIONS) if (self.root / name).exists()]:
            raise UserError(f"{self.root} holds {taken[0]} of something else. Choose another --output.")
        with _writing(self.root):
            remove_leftovers(self.root, f"**/{LEFTOVERS}")
            for folder in (PARTS, *SUFFIXES):
                (self.root / folder).mkdir(parents=True, exist_ok=True)
            write_json(path, settings)
        lines = self._all_lines()
        self._consolidate({n: line for n, line in lines.items() if self._is_finished(line, images.get(n))})

    def _check_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            differing = [key for key, value in settings.items() if key != "model" and found[key] != value]
            name = found["model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is torn ({error!r}). Choose another --output, or delete the folder.") from error
        if differing:
            raise UserError(
                f"{self.root} holds predictions by another model or in another way: model {name}, not "
                f"{settings['model']}; {', '.join(differing)} differ. Choose another --output, or delete the folder."
            )

    def _is_finished(self, line: Mapping[str, Any], path: Path | None) -> bool:
        """Raises UserError where the line is that of another image than `path`; moved is not another."""
        if not all(file.is_file() for file in self.paths(line["name"])):
            return False
        if path is None or line["file_state"] == list(file_state(path)):
            return True
        if line["file"] != str(path):
            raise UserError(
                f"{self.paths(line['name'])[0]} was made of {line['file']}, and would be overwritten for {path}. "
                "Choose another --output."
            )
        return False  # the image has changed

    def paths(self, name: str) -> list[Path]:
        """The mask, colours and overlay of an image."""
        return [self.root / folder / (name + suffix) for folder, suffix in SUFFIXES.items()]

    def finished(self) -> set[str]:
        """The names in `predictions.jsonl`."""
        return {line["name"] for line in read_lines(self.root / PREDICTIONS)}

    def write(self, name: str, image: Image.Image, ids: NDArray[Any]) -> None:
        """Writes the pictures of an image.

        Args:
            name: of the image.
            image: RGB; the overlay is drawn on it.
            ids: (H, W), uint8 or uint16.

        Raises:
            UserError: there is no room, or no permission.
        """
        mask = Image.fromarray(ids)
        if len(self.palette) <= 256:
            coloured = mask.copy()
            coloured.putpalette(self.palette.tobytes())
        else:
            coloured = Image.fromarray(self.palette[ids])
        draw_over(image, coloured)
        with _writing(self.root):
            for picture, path in zip((mask, coloured, image), self.paths(name), strict=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                with written_whole(path) as partial:
                    picture.save(partial, **SAVING[path.suffix])

    def append(self, part: int, line: Mapping[str, Any]) -> None:
        """Adds the line of an image whose pictures are written; raises UserError where there is no room."""
        with _writing(self.root), (self.root / PARTS / f"{part}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def merge(self) -> Iterator[dict[str, Any]]:
        """Brings the lines of all processes into `predictions.jsonl`, and gives them."""
        self._consolidate(self._all_lines())
        return read_lines(self.root / PREDICTIONS)

    def _all_lines(self) -> dict[str, dict[str, Any]]:
        files = [self.root / PREDICTIONS, *sorted((self.root / PARTS).glob("*.jsonl"))]
        return {line["name"]: line for path in files if path.is_file() for line in read_lines(path)}

    def _consolidate(self, lines: Mapping[str, Mapping[str, Any]]) -> None:
        with _writing(self.root):
            with written_whole(self.root / PREDICTIONS) as partial, partial.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for _, line in sorted(lines.items()))
            for path in (self.root / PARTS).glob("*.jsonl"):  # all in it is in the file now
                path.unlink()


def draw_over(image: Image.Image, coloured: Image.Image) -> None:
    """Blends the colours into an RGB image, band by band: of a large image there is room for one copy only."""
    for top in range(0, image.height, BAND):
        box = (0, top, image.width, min(top + BAND, image.height))
        image.paste(Image.blend(image.crop(box), coloured.crop(box).convert("RGB"), OVERLAY), box)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a part or of the whole; the end of a last line that was cut off is left out.

    Raises:
        UserError: a line is none of ours.
    """
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith("\n"):
                return
            try:
                line = json.loads(text)
                is_whole = line.keys() >= KEYS
            except (ValueError, AttributeError):
                is_whole = False
            if not is_whole:
                raise UserError(f"{path}, line {number} is damaged. Delete the line: its image is redone.")
            yield line


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        with writing(root):
            yield
    except WriteError as error:
        raise UserError(f"{error} Then start again, or choose another --output: what is finished stays.") from error
