"""Which mask belongs to which image, by their names, in one Unicode form; where they nearly agree, what to rename."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from hfseg.data.images import is_image
from hfseg.data.source import Pair
from hfseg.errors import UserError

CLUTTER = {"thumbs.db", "desktop.ini"}  # which Windows leaves


def same_form(name: str) -> str:
    """The name in Unicode's form NFC: macOS stores others, which look the same."""
    return unicodedata.normalize("NFC", name)


def stem(path: Path, folder: Path) -> str:
    """What a file is called: its path in the folder, without the suffix, in one Unicode form."""
    return same_form(path.relative_to(folder).with_suffix("").as_posix())


def pair_files(root: Path, folder: Path, mask_folder: Path | None, mask_suffix: str) -> tuple[list[Pair], list[Path]]:
    """The samples of a split, called by their paths in `root`, and the masks that have no image.

    Raises UserError where an image has no mask, but there is one that may be its by its name.
    """
    images = list_images(folder)
    if mask_folder == folder:
        images = {key: path for key, path in images.items() if not key.endswith(mask_suffix)}
    files = list_images(mask_folder) if mask_folder else {}
    masks = {key.removesuffix(mask_suffix): path for key, path in files.items() if key.endswith(mask_suffix)}
    alone = {key: path for key, path in images.items() if key not in masks}
    if alone and mask_folder:
        others = {key: path for key, path in files.items() if key not in images and path not in masks.values()}
        others |= {key: path for key, path in masks.items() if key not in images}
        check_names(alone, others, is_any_paired=len(alone) < len(images))
        for path in list_other_files(mask_folder):
            if (image := alone.get(stem(path, mask_folder))) is not None:
                raise UserError(f"{path} is no image file that is read, and {image} has no mask. Save it as PNG.")
    pairs = [Pair(stem(path, root), path, masks.get(key)) for key, path in images.items()]
    return pairs, [path for key, path in masks.items() if key not in images]


def list_images(folder: Path) -> dict[str, Path]:
    """The image files below a folder that are not hidden, by their path in it without the extension.

    Raises UserError for two files that differ in nothing but the extension, or the Unicode form.
    """
    found: dict[str, Path] = {}
    for path in filter(is_image, _walk(folder)):
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


def list_other_files(folder: Path) -> list[Path]:
    """The files below a folder that are no images by their suffix, but for hidden ones and what Windows leaves."""
    return [path for path in _walk(folder) if not is_image(path) and path.name.lower() not in CLUTTER]


def _walk(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, through links too, each real folder once; sorted."""
    seen, files = set(), []
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        visible = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [name for name in visible if os.path.realpath(os.path.join(parent, name)) not in seen]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(files)


def check_names(images: Mapping[str, Path], masks: Mapping[str, Path], is_any_paired: bool) -> None:
    """Raises UserError where an image's mask is there under nearly the same name; says which, and what to do.

    Args:
        images: those without a mask, by their names.
        masks: those without an image, likewise.
        is_any_paired: whether other images have masks of their names, so that a suffix for all would be wrong.
    """
    by_case = {name.casefold(): path for name, path in images.items()}
    for name, path in masks.items():
        image = by_case.get(name.casefold())
        if image is not None:
            raise UserError(
                f"{path} and {image} differ in upper and lower case, so that they are no pair. Rename the mask to "
                f"{image.stem}{path.suffix}, and the others like it."
            )
    suffix = find_mask_suffix(images, masks)
    if not suffix:
        return
    example = next(path for name, path in masks.items() if name.endswith(suffix))
    if is_any_paired:
        plain = example.stem.removesuffix(suffix)
        raise UserError(
            f"{example} has {suffix} at the end of its name, unlike other masks, and {plain} has no mask. If it is "
            f"its mask, rename it to {plain}{example.suffix}; otherwise move the image out of the data set."
        )
    raise UserError(
        f"The images have no masks of the same name, but there are masks with {suffix} at the end, such as {example}. "
        f"Set data.mask_suffix={suffix}"
    )


def find_mask_suffix(images: Collection[str], masks: Collection[str]) -> str:
    """What most of the masks' names have after an image's, such as `_mask`; empty if there is nothing."""
    found: Counter[str] = Counter()
    for name in masks:
        start = name.rfind("/") + 2  # a name has one character at least
        ends = [index for index in range(start, len(name)) if not name[index].isalnum() and name[:index] in images]
        found.update(name[index:] for index in ends[-1:] if name[index:].strip())
    return found.most_common(1)[0][0] if found else ""
