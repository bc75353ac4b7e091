"""Your own images and masks.

    images/{train,val,test}/**      masks/{train,val,test}/**       x.jpg with x.png, folders within alike
    images/**                       masks/**                        without splits: fixed tenths are held out
    images/**                       (no masks/)                     x.jpg beside x_mask.png, with data.mask_suffix
    classes.txt                     or .json, .yaml                 see `hfseg.data.classes`

`masks` may be called `labels` or `annotations`. A test folder without any mask becomes the split `predict`.
"""

from collections.abc import Mapping
from pathlib import Path

from hfseg.config import DataConfig
from hfseg.data.classes import find_class_file, named_classes, read_class_table
from hfseg.data.masks import MaskReader
from hfseg.data.pairing import find_mask_suffix, list_images, list_other_files, pair_files, same_form
from hfseg.data.source import Pair, Source
from hfseg.data.splits import check_likely_splits, complete_splits, find_splits, hold_out
from hfseg.errors import UserError

MASK_FOLDERS = ("masks", "labels", "annotations")


def folder_source(config: DataConfig) -> Source:
    """Images and masks below `data.root`, in the layouts above; UserError where they are not so, or no classes."""
    if config.root is None or not config.root.is_dir():
        raise UserError(f"data.root={config.root} is not a folder. {_layout(config.mask_suffix)}")
    root = config.root.resolve()
    mask_suffix = same_form(config.mask_suffix)
    images, masks = find_folders(root, mask_suffix)
    class_files: list[Path] = []
    if isinstance(config.classes, tuple):
        table = named_classes(config.classes, config.ignore_index)
    else:
        class_files = [find_class_file(root, config.classes)]
        table = read_class_table(class_files[0], config.ignore_index)
    splits: dict[str, list[Pair]] = {}
    unpaired = [path for split in masks.keys() - images for path in list_images(masks[split]).values()]
    for split, folder in images.items():
        pairs, alone = pair_files(root / "images", folder, masks.get(split), mask_suffix)
        if not pairs:
            raise UserError(f"{folder} holds no image.")
        is_unlabelled = split == "test" and not any(pair.mask for pair in pairs)
        splits["predict" if is_unlabelled else split] = pairs
        unpaired += alone + [pair.image for pair in pairs if pair.mask is None and not is_unlabelled]
    predict = {"predict": splits.pop("predict")} if "predict" in splits else {}
    return Source(
        name="folder",
        root=root,
        labels=table.labels,
        splits=complete_splits(splits, lambda pairs, _: hold_out(pairs, lambda _: ""), str(root)) | predict,
        read_ids=MaskReader.of(table, config.reduce_labels),
        listings=class_files,
        unpaired=unpaired,
        other_files=sorted({path for each in (*images.values(), *masks.values()) for path in list_other_files(each)}),
    )


def find_folders(root: Path, mask_suffix: str) -> tuple[Mapping[str, Path], Mapping[str, Path]]:
    """Split -> folder of images, and split -> folder of masks; without split folders, all are `train`.

    Raises UserError where images/ or the masks are missing, or images lie outside of the split folders.
    """
    images = root / "images"
    masks = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    if len(masks) > 1:
        raise UserError(f"{root} holds {' and '.join(path.name for path in masks)}. Keep the one with the masks.")
    if not images.is_dir() or not (masks or mask_suffix):
        names = list_images(images) if images.is_dir() else {}
        missing = "masks" if images.is_dir() else "images"
        raise UserError(f"{root} has no {missing}/. {_layout(find_mask_suffix(names, names))}")
    found = split_folders(images)
    mask_splits = split_folders(masks[0]) if masks else found
    if bool(found) != bool(mask_splits):
        split, plain = (images, masks[0]) if found else (masks[0], images)
        raise UserError(f"{split} has split folders, but {plain} has none. Give both the same folders.")
    if not found:
        check_likely_splits(_subfolders(images), str(images))
        return {"train": images}, {"train": masks[0] if masks else images}
    check_all_split(images, found)
    if masks:
        check_all_split(masks[0], mask_splits)
    return found, mask_splits


def find_layout(root: Path) -> tuple[str, list[Path]]:
    """What most masks have at the end of their names after the images' (`data.mask_suffix`), and the mask files.

    Nothing is checked: both are empty where there are no images/, or no masks.
    """
    images = list_images(root / "images")
    folders = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    masks = list_images(folders[0]) if folders else images
    is_same_name = bool(folders) and not images.keys().isdisjoint(masks)
    suffix = "" if is_same_name else find_mask_suffix(images, masks)
    return suffix, [path for name, path in masks.items() if name.endswith(suffix)] if folders or suffix else []


def split_folders(folder: Path) -> dict[str, Path]:
    """Split -> folder in `folder`; raises UserError where two mean the same split."""
    return {split: folder / name for split, name in find_splits(_subfolders(folder), str(folder)).items()}


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def check_all_split(folder: Path, splits: Mapping[str, Path]) -> None:
    """Raises UserError where image files lie outside of the split folders."""
    outside = [path for path in list_images(folder).values() if not any(map(path.is_relative_to, splits.values()))]
    if outside:
        names = ", ".join(f"{path.name}/" for path in splits.values())
        raise UserError(
            f"{folder} is split into {names} but {len(outside)} images lie elsewhere in it, such as {outside[0]}. "
            "Move them into a split, or out of the data set."
        )


def _layout(mask_suffix: str) -> str:
    beside = (
        f", or images/x.jpg beside images/x{mask_suffix}.png, with data.mask_suffix={mask_suffix}"
        if mask_suffix
        else ""
    )
    return (
        "It must hold images/ and masks/ with the same names in both, and in both with or without the split folders "
        f"train, val and test{beside}; and classes.txt."
    )
