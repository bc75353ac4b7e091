"""Your own images and masks.

    images/{train,val,test}/**      masks/{train,val,test}/**       x.jpg with x.png, folders within alike
    images/**                       masks/**                        without splits: fixed tenths are held out
    images/**                       (no masks/)                     x.jpg beside x_mask.png, with data.mask_suffix
    classes.txt                     or .json, .yaml                 see `hfseg.data.classes`

`masks` may be called `labels` or `annotations`. A test folder without any mask becomes the split `predict`.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hfseg.config import DataConfig
from hfseg.data.classes import find_class_file, named_classes, read_class_table
from hfseg.data.masks import MaskReader
from hfseg.data.names import check_names, find_mask_suffix, same_form, stem
from hfseg.data.source import Pair, Source, hold_out
from hfseg.data.splits import check_likely_splits, complete_splits, find_splits
from hfseg.data.suffixes import SUFFIXES
from hfseg.errors import UserError

MASK_FOLDERS = ("masks", "labels", "annotations")
CLUTTER = {"thumbs.db", "desktop.ini"}


def folder_source(config: DataConfig) -> Source:
    """Images and masks below `data.root`, in the layouts above.

    Raises:
        UserError: no such layout, no class file, or two files that could be the same image or mask.
    """
    if config.root is None or not config.root.is_dir():
        raise UserError(f"data.root={config.root} is not a folder. {_layout(config.mask_suffix)}")
    root = config.root.resolve()
    class_files: list[Path] = []
    if isinstance(config.classes, tuple):
        table = named_classes(config.classes, config.ignore_index)
    else:
        class_files = [find_class_file(root, config.classes)]
        table = read_class_table(class_files[0], config.ignore_index)
    mask_suffix = same_form(config.mask_suffix)
    folders = find_folders(root, mask_suffix)
    splits: dict[str, list[Pair]] = {}
    strays: list[Path] = []
    for split in folders.masks.keys() - folders.images:
        strays += list_files(folders.masks[split]).values()
    for split, images in folders.images.items():
        pairs, extra = pair_files(folders, split, mask_suffix)
        if not pairs:
            raise UserError(f"{images} holds no image.")
        strays += extra
        unlabelled = split == "test" and not any(pair.mask for pair in pairs)
        strays += [] if unlabelled else [pair.image for pair in pairs if pair.mask is None]
        splits["predict" if unlabelled else split] = pairs
    predict = {"predict": splits.pop("predict")} if "predict" in splits else {}
    return Source(
        name="folder",
        root=root,
        labels=table.labels,
        splits=complete_splits(splits, lambda pairs, _: hold_out(pairs, lambda _: ""), str(root)) | predict,
        read_ids=MaskReader.of(table, config.reduce_labels),
        listings=class_files,
        strays=strays,
        unread=sorted({path for folder in folders.all() for path in list_unread(folder)}),
    )


@dataclass(frozen=True)
class Folders:
    """Split -> folder. All images are below `root`; without split folders, all are `train`."""

    root: Path
    images: Mapping[str, Path]
    masks: Mapping[str, Path]

    def all(self) -> list[Path]:
        return [*self.images.values(), *self.masks.values()]


def find_folders(root: Path, mask_suffix: str) -> Folders:
    """Finds the split folders of images and of masks.

    Raises:
        UserError: images/ or the masks are missing, or images lie outside of the split folders, or their names are
            like those of splits, but are none.
    """
    images = root / "images"
    masks = [root / name for name in MASK_FOLDERS if (root / name).is_dir()]
    if len(masks) > 1:
        raise UserError(f"{root} holds {' and '.join(path.name for path in masks)}. Keep the one with the masks.")
    if not images.is_dir() or not (masks or mask_suffix):
        raise UserError(
            f"{root} has no {'masks' if images.is_dir() else images.name}/. {_layout(_suffix_beside(images))}"
        )
    found = split_folders(images)
    mask_splits = split_folders(masks[0]) if masks else found
    if bool(found) != bool(mask_splits):
        split, plain = (images, masks[0]) if found else (masks[0], images)
        raise UserError(f"{split} has split folders, but {plain} has none. Give both the same folders.")
    if not found:
        check_likely_splits(_subfolders(images), str(images))
        return Folders(images, {"train": images}, {"train": masks[0] if masks else images})
    check_all_split(images, found)
    if masks:
        check_all_split(masks[0], mask_splits)
    return Folders(images, found, mask_splits)


def check_all_split(folder: Path, splits: Mapping[str, Path]) -> None:
    """Raises UserError where image files lie outside of the split folders."""
    outside = [path for path in list_files(folder).values() if not any(map(path.is_relative_to, splits.values()))]
    if outside:
        names = ", ".join(f"{path.name}/" for path in splits.values())
        raise UserError(
            f"{folder} is split into {names} but {len(outside)} images lie elsewhere in it, such as {outside[0]}. "
            "Move them into a split, or out of the data set."
        )


def split_folders(folder: Path) -> dict[str, Path]:
    """The split folders in `folder`; raises UserError where two mean the same split."""
    return {split: folder / name for split, name in find_splits(_subfolders(folder), str(folder)).items()}


def pair_files(folders: Folders, split: str, mask_suffix: str) -> tuple[list[Pair], list[Path]]:
    """The samples of a split, with None for a mask that is not there; and the masks that have no image.

    Raises:
        UserError: a mask is there, but by its name it is not the image's.
    """
    folder, mask_folder = folders.images[split], folders.masks.get(split)
    images = list_files(folder)
    if mask_folder == folder:
        images = {key: path for key, path in images.items() if not key.endswith(mask_suffix)}
    files = list_files(mask_folder) if mask_folder else {}
    masks = {key.removesuffix(mask_suffix): path for key, path in files.items() if key.endswith(mask_suffix)}
    bare = {key: path for key, path in images.items() if key not in masks}
    if bare and mask_folder:
        alone = {key: path for key, path in files.items() if key not in images and path not in masks.values()}
        alone |= {key: path for key, path in masks.items() if key not in images}
        check_names(
            bare, alone, {stem(path, mask_folder): path for path in list_unread(mask_folder)}, len(bare) < len(images)
        )
    pairs = [Pair(stem(path, folders.root), path, masks.get(key)) for key, path in images.items()]
    return pairs, [path for key, path in masks.items() if key not in images]


def list_files(folder: Path) -> dict[str, Path]:
    """The image files below a folder, by their path in it without the extension; hidden ones are not looked at.

    Raises:
        UserError: two files differ in nothing but the extension, or the Unicode form.
    """
    found: dict[str, Path] = {}
    for path in sorted(_walk(folder)):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in inside.parts):
            continue
        key = stem(path, folder)
        if key in found:
            form = "" if path.stem == found[key].stem else ", in two Unicode forms"
            raise UserError(
                f"{found[key]} and {path.name} have the same name{form}: which one counts? Remove the other."
            )
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{os.fsencode(path)!r} is not a UTF-8 file name. Rename the file.") from error
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file but a pipe, socket or device. Remove it.")
        if not path.exists():
            raise UserError(f"{path} is a link to a file that is not there. Restore the file or remove the link.")
        found[key] = path
    return found


def list_unread(folder: Path) -> list[Path]:
    """The files below a folder that are no images by their suffix, but for hidden ones and what Windows leaves."""
    return [
        path
        for path in sorted(_walk(folder))
        if path.suffix.lower() not in SUFFIXES
        and path.name.lower() not in CLUTTER
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _suffix_beside(images: Path) -> str:
    """What masks that lie beside their images have at the end of their names."""
    names = list_files(images) if images.is_dir() else {}
    return find_mask_suffix(names, names)


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links too, each real folder once."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        folders[:] = [name for name in sorted(folders) if os.path.realpath(os.path.join(parent, name)) not in seen]
        yield from (Path(parent, name) for name in names)


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
