"""Cityscapes (Cordts et al., 2016) from its official layout or its official archives.

    leftImg8bit/{train,val,test}/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png       0..33

The label ids become the 19 train ids while they are read, so no `createTrainIdLabelImgs` is needed; where only its
`*_labelTrainIds.png` are at hand, they do as well.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.data.archive import extract_archives, official_root
from hfseg.data.cityscapes_download import PACKAGES, WHERE_FROM, download
from hfseg.data.images import open_image
from hfseg.data.source import Pair, Source
from hfseg.data.splits import hold_out
from hfseg.errors import UserError
from hfseg.labels import Colour, LabelSet

# Name, label id, official colour and category of each class, whose place in this list is its train id. Mistakes inside
# of a category, as cityscapesScripts has them, do not count in the category IoU.
CLASSES: tuple[tuple[str, int, Colour, str], ...] = (
    ("road", 7, (128, 64, 128), "flat"),
    ("sidewalk", 8, (244, 35, 232), "flat"),
    ("building", 11, (70, 70, 70), "construction"),
    ("wall", 12, (102, 102, 156), "construction"),
    ("fence", 13, (190, 153, 153), "construction"),
    ("pole", 17, (153, 153, 153), "object"),
    ("traffic light", 19, (250, 170, 30), "object"),
    ("traffic sign", 20, (220, 220, 0), "object"),
    ("vegetation", 21, (107, 142, 35), "nature"),
    ("terrain", 22, (152, 251, 152), "nature"),
    ("sky", 23, (70, 130, 180), "sky"),
    ("person", 24, (220, 20, 60), "human"),
    ("rider", 25, (255, 0, 0), "human"),
    ("car", 26, (0, 0, 142), "vehicle"),
    ("truck", 27, (0, 0, 70), "vehicle"),
    ("bus", 28, (0, 60, 100), "vehicle"),
    ("train", 31, (0, 80, 100), "vehicle"),
    ("motorcycle", 32, (0, 0, 230), "vehicle"),
    ("bicycle", 33, (119, 11, 32), "vehicle"),
)
CATEGORIES = {name: category for name, _, _, category in CLASSES}
IGNORE = 255
# Label id -> train id. -1 is the license plate, and 255 how eight bits write -1.
LABEL_IDS = dict.fromkeys([*range(34), -1, 255], IGNORE) | {
    label_id: train_id for train_id, (_, label_id, *_) in enumerate(CLASSES)
}
TRAIN_IDS = {train_id: train_id for train_id in range(len(CLASSES))} | {-1: IGNORE, 255: IGNORE}
LABEL_CODING, TRAIN_CODING = ("label ids (0..33)", LABEL_IDS), ("train ids (0..18)", TRAIN_IDS)

IMAGE, MASK, READY_MASK = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
NEEDED = re.compile(
    r"leftImg8bit/(train|val|test)/.*_leftImg8bit\.png$|gtFine/(train|val)/.*_gtFine_label(Train)?Ids\.png$"
)
MAX_UNPACKED_BYTES = 16 << 30  # the official archives unpack to 11.7 GB


def cityscapes_labels() -> LabelSet:
    """The 19 classes of the benchmark, in the order of their train ids and in their official colours."""
    return LabelSet([name for name, *_ in CLASSES], IGNORE, [colour for _, _, colour, _ in CLASSES])


def cityscapes_source(root: Path | None, cache_dir: Path) -> Source:
    """The official folders or archives below `root`, or the download.

    The official val has the role of the final score: it is `test`. `validation` is 10 % of each city of the official
    train, by name; `train` is the rest. The official test has no labels (those in gtFine/test are dummies): it is
    `predict`, if its images are there.

    Raises:
        UserError: no usable folder or archive, an image without a mask or a mask without an image.
    """
    root = prepare_root(root, cache_dir).resolve()
    train, validation = hold_out(find_pairs(root, "train"), lambda pair: pair.image.parent.name)
    splits = {"train": train, "validation": validation, "test": find_pairs(root, "val")}
    unlabelled = find_files(root / "leftImg8bit" / "test", IMAGE)
    if unlabelled:
        splits["predict"] = [Pair(Path(key).name, path, None) for key, path in unlabelled.items()]
    return Source(name="cityscapes", root=root, labels=cityscapes_labels(), splits=splits, read_ids=CityscapesReader())


def find_pairs(root: Path, split: str) -> list[Pair]:
    """The images of an official split with their masks; raises UserError for none, and for those without the other."""
    images = find_files(root / "leftImg8bit" / split, IMAGE)
    folder = root / "gtFine" / split
    masks = find_files(folder, READY_MASK) | find_files(folder, MASK)
    if not images or not masks:
        empty, package = (root / "gtFine", "gtFine") if images else (root / "leftImg8bit", "leftImg8bit")
        raise UserError(
            f"{empty / split} holds no <city>/*{MASK if images else IMAGE}. They are in {package}_trainvaltest.zip "
            f"({PACKAGES[f'{package}_trainvaltest.zip']}): {WHERE_FROM}."
        )
    for here, there, counterpart in (
        (images, masks, f"{folder}/{{}}{MASK}"),
        (masks, images, f"{root}/leftImg8bit/{split}/{{}}{IMAGE}"),
    ):
        alone = sorted(here.keys() - there.keys())
        if alone:
            raise UserError(
                f"{counterpart.format(alone[0])} is missing, the counterpart of {here[alone[0]]}; {len(alone)} of "
                f"{len(here)} such files have none. Unpack the official archives again, or remove these files."
            )
    return [Pair(Path(key).name, path, masks[key]) for key, path in images.items()]


def find_files(folder: Path, ending: str) -> dict[str, Path]:
    """`<city>/<name>` -> file, sorted; without the `._*` that a Mac leaves behind."""
    files = sorted(path for path in folder.glob(f"*/*{ending}") if not path.name.startswith("."))
    return {f"{path.parent.name}/{path.name.removesuffix(ending)}": path for path in files}


@dataclass(frozen=True)
class CityscapesReader:
    """Train ids (H, W) from a mask; its name tells whether it holds label ids or train ids."""

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        values = np.asarray(open_image(path))
        coding, table = TRAIN_CODING if path.name.endswith(READY_MASK) else LABEL_CODING
        wrong: list[Any] = [f"{values.dtype} of shape {values.shape}"]
        if values.ndim == 2 and values.dtype.kind in "iu":
            wrong = sorted(set(np.unique(values).tolist()) - table.keys())
        if wrong:
            raise UserError(
                f"{path} holds {wrong[:8]}; its name promises one channel of {coding}, with -1 or 255 for what does "
                "not count. Restore the official file, or read another data set's mask with its `data.name`."
            )
        lookup = np.full(256, IGNORE, np.uint8)
        lookup[list(table)] = list(table.values())  # -1 is the last place, which is 255's too
        return lookup[values]


def prepare_root(root: Path | None, cache_dir: Path) -> Path:
    """The folder that holds `leftImg8bit/` and `gtFine/`: `root` itself, its unpacked archives, or the download."""
    cache_dir = cache_dir / "cityscapes"
    if root is not None:
        folders, remedy = ("leftImg8bit", "gtFine"), f"{WHERE_FROM}."
        return official_root(root, folders, tuple(PACKAGES), remedy, cache_dir, MAX_UNPACKED_BYTES, NEEDED)
    folder = cache_dir / "official"
    if folder.exists():
        return folder
    return extract_archives(download(cache_dir / "downloads"), folder, MAX_UNPACKED_BYTES, NEEDED)
