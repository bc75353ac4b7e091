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

from hfseg.data.archive import extract_archives
from hfseg.data.cityscapes_download import PACKAGES, WHERE_FROM, download
from hfseg.data.files import digest, open_image
from hfseg.data.source import Pair, Source, hold_out
from hfseg.errors import UserError
from hfseg.labels import Colour, LabelSet

# Name, label id and official colour of each class; its place in this list is its train id.
CLASSES: tuple[tuple[str, int, Colour], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
# cityscapesScripts' seven categories: mistakes inside of one do not count in the category IoU.
CATEGORIES = {
    **dict.fromkeys(("road", "sidewalk"), "flat"),
    **dict.fromkeys(("building", "wall", "fence"), "construction"),
    **dict.fromkeys(("pole", "traffic light", "traffic sign"), "object"),
    **dict.fromkeys(("vegetation", "terrain"), "nature"),
    "sky": "sky",
    **dict.fromkeys(("person", "rider"), "human"),
    **dict.fromkeys(("car", "truck", "bus", "train", "motorcycle", "bicycle"), "vehicle"),
}
IGNORE = 255
# Label id -> train id. -1 is the license plate, and 255 how eight bits write -1.
LABEL_IDS = dict.fromkeys([*range(34), -1, 255], IGNORE) | {
    label_id: train_id for train_id, (_, label_id, _) in enumerate(CLASSES)
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
    return LabelSet([name for name, _, _ in CLASSES], IGNORE, [colour for _, _, colour in CLASSES])


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
    """The images of an official split with their masks.

    Raises:
        UserError: there are none, or some have no counterpart.
    """
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
    """Train ids from a mask; its name tells whether it holds label ids or train ids."""

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Reads ids (H, W).

        Raises:
            UserError: unreadable, or values that the coding does not have.
        """
        values = np.asarray(open_image(path))
        coding, table = TRAIN_CODING if path.name.endswith(READY_MASK) else LABEL_CODING
        wrong: list[Any] = [f"{values.dtype} of shape {values.shape}"]
        if values.ndim == 2 and values.dtype.kind in "iu":
            wrong = sorted(set(np.unique(values).tolist()) - table.keys())
        if wrong:
            raise UserError(
                f"{path} holds {wrong[:8]}; its name promises one channel of {coding}, with -1 or 255 for what does "
                "not count. Restore the official file; if this is another data set's mask, it needs another "
                "`data.name`."
            )
        lookup = np.full(256, IGNORE, np.uint8)
        lookup[list(table)] = list(table.values())  # -1 is the last place, which is 255's too
        return lookup[values]


def prepare_root(root: Path | None, cache_dir: Path) -> Path:
    """The folder that holds `leftImg8bit/` and `gtFine/`: `root` itself, its unpacked archives, or the download.

    Raises:
        UserError: nothing usable under `root`, a damaged archive, or no download; says what to do.
    """
    if root is None:
        folder = cache_dir / "cityscapes" / "official"
        if folder.exists():
            return folder
        return extract_archives(download(cache_dir / "cityscapes" / "downloads"), folder, MAX_UNPACKED_BYTES, NEEDED)
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder. {WHERE_FROM}.")
    if (root / "leftImg8bit").is_dir():
        return root
    archives = [root / name for name in PACKAGES]
    missing = [path.name for path in archives if not path.is_file()]
    if missing:
        raise UserError(
            f"{root} holds neither leftImg8bit/ and gtFine/ nor both archives (missing: {', '.join(missing)}). "
            f"{WHERE_FROM}."
        )
    state = [NEEDED.pattern, *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in archives)]
    folder = cache_dir / "cityscapes" / f"unpacked-{digest(state)}"
    return extract_archives(archives, folder, MAX_UNPACKED_BYTES, NEEDED)
