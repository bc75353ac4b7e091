"""Oxford-IIIT Pet (Parkhi et al., 2012) from its official layout.

    images/<Breed>_<n>.jpg
    annotations/trimaps/<Breed>_<n>.png     1 pet, 2 background, 3 boundary ("not classified")
    annotations/{trainval,test}.txt         "<Breed>_<n> CLASS-ID SPECIES BREED-ID" on each line

Only what the two lists name is read: the folders also hold a GIF under a .jpg name, .mat files and `._*.png`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from hfseg.data.archive import extract_archives, official_root
from hfseg.data.images import open_image
from hfseg.data.source import Pair, Source
from hfseg.data.splits import hold_out
from hfseg.errors import UserError
from hfseg.files import read_text
from hfseg.labels import LabelSet

BASE_URL = "https://thor.robots.ox.ac.uk/pets/"
MD5 = {
    "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
}
MAX_UNPACKED_BYTES = 4 << 30  # the official archives unpack to 0.9 GB

PET, BACKGROUND, BOUNDARY = (230, 159, 0), (0, 114, 178), (204, 121, 167)


def pet_labels(boundary: str) -> LabelSet:
    """The classes: the boundary ring is one of them ("class") or does not count ("ignore")."""
    if boundary == "ignore":
        return LabelSet(["pet", "background"], palette=[PET, BACKGROUND])
    return LabelSet(["pet", "background", "boundary"], palette=[PET, BACKGROUND, BOUNDARY])


def oxford_pet_source(root: Path | None, boundary: str, cache_dir: Path) -> Source:
    """The official folders or archives below `root`, or the download.

    Splits are `train`, `validation` (10 % of each breed of the official trainval, by name) and `test`.

    Raises:
        UserError: no usable folder or archive, or something wrong with the official lists.
    """
    root = prepare_root(root, cache_dir).resolve()
    images, trimaps = root / "images", root / "annotations" / "trimaps"
    trainval, test = (
        [Pair(name, images / f"{name}.jpg", trimaps / f"{name}.png") for name in read_list(root, split)]
        for split in ("trainval", "test")
    )
    train, validation = hold_out(trainval, breed)
    return Source(
        name="oxford_pet",
        root=root,
        labels=pet_labels(boundary),
        splits={"train": train, "validation": validation, "test": test},
        read_ids=TrimapReader(boundary),
        listings=[root / "annotations" / f"{split}.txt" for split in ("trainval", "test")],
    )


def breed(pair: Pair) -> str:
    """`great_pyrenees_12` -> `great_pyrenees`"""
    return pair.name.rpartition("_")[0]


def read_list(root: Path, split: str) -> list[str]:
    """The names in one of the official lists; raises UserError where it is missing or empty."""
    path = root / "annotations" / f"{split}.txt"
    if not path.is_file():
        raise UserError(f"{path} is missing. data.root must hold images/ and annotations/, or {' and '.join(MD5)}.")
    names = [line.split()[0] for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    if not names:
        raise UserError(f"{path} names no image: the {split} split is empty. Restore the official list.")
    return names


@dataclass(frozen=True)
class TrimapReader:
    """Class ids (H, W) from a trimap; the boundary ring is a class ("class") or does not count ("ignore")."""

    boundary: str

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        values = np.asarray(open_image(path))
        wrong: list[Any] = [f"{values.shape[-1]} channels"]
        if values.ndim == 2:
            wrong = sorted(set(np.unique(values).tolist()) - {1, 2, 3})
        if wrong:
            raise UserError(
                f"{path} holds {wrong[:8]}; an Oxford trimap has one channel of 1 (pet), 2 (background) and "
                "3 (boundary). If this is another data set's mask, it needs another `data.name`."
            )
        ids = (values - 1).astype(np.uint8)
        if self.boundary == "ignore":
            ids[ids == 2] = 255
        return ids


def prepare_root(root: Path | None, cache_dir: Path) -> Path:
    """The folder that holds `images/` and `annotations/`: `root` itself, its unpacked archives, or the download."""
    cache_dir = cache_dir / "oxford_pet"
    if root is not None:
        remedy = f"Get {' and '.join(MD5)} from {BASE_URL} and set data.root to their folder, or leave it out."
        return official_root(root, ("images", "annotations"), tuple(MD5), remedy, cache_dir, MAX_UNPACKED_BYTES)
    folder = cache_dir / "official"
    return folder if folder.exists() else extract_archives(_download(cache_dir.parent), folder, MAX_UNPACKED_BYTES)


def _download(cache_dir: Path) -> list[Path]:
    manager = datasets.DownloadManager(download_config=datasets.DownloadConfig(cache_dir=cache_dir / "downloads"))
    archives = []
    for name, expected in MD5.items():
        try:
            path = Path(manager.download(BASE_URL + name))
        except OSError as error:
            raise UserError(
                f"Could not download {BASE_URL}{name}: {error}. Run the command again, or fetch {' and '.join(MD5)} "
                "by hand into a folder and set data.root to it."
            ) from error
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "md5").hexdigest()
        if got != expected:
            path.unlink()
            raise UserError(f"{BASE_URL}{name} arrived damaged: md5 {got}, expected {expected}. Run it again.")
        archives.append(path)
    return archives
