"""Names of files as people read them: in one Unicode form, and told apart where an image and its mask nearly agree."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from hfseg.errors import UserError


def same_form(name: str) -> str:
    """The name in Unicode's form NFC: macOS stores others, which look the same."""
    return unicodedata.normalize("NFC", name)


def stem(path: Path, folder: Path) -> str:
    """What a file is called: its path in the folder, without the suffix, in one Unicode form."""
    return same_form(path.relative_to(folder).with_suffix("").as_posix())


def check_names(
    images: Mapping[str, Path], masks: Mapping[str, Path], others: Mapping[str, Path], is_any_paired: bool
) -> None:
    """Compares the names of images that have no mask with those of masks that have no image.

    Args:
        images: those without a mask, by their names.
        masks: those without an image, likewise.
        others: files beside the masks that are not read.
        is_any_paired: whether other images have masks of their names, so that a suffix for all would be wrong.

    Raises:
        UserError: an image's mask is there under nearly the same name; says which, and what to do.
    """
    by_case = {name.casefold(): name for name in images}
    for name, path in masks.items():
        image = by_case.get(name.casefold())
        if image is not None:
            raise UserError(
                f"{path} and {images[image]} differ in upper and lower case, so that they are no pair. Rename the "
                f"mask to {Path(image).name}{path.suffix}, and the others like it."
            )
    suffix = find_mask_suffix(images, masks)
    if suffix:
        example = next(path for name, path in masks.items() if name.endswith(suffix))
        if is_any_paired:
            bare = example.stem.removesuffix(suffix)
            raise UserError(
                f"{example} has {suffix} at the end of its name, unlike other masks, and {bare} has no mask. If it "
                f"is its mask, rename it to {bare}{example.suffix}; otherwise move the image out of the data set."
            )
        raise UserError(
            f"The images have no masks of the same name, but there are masks with {suffix} at the end, such as "
            f"{example}. Set data.mask_suffix={suffix}"
        )
    for name in sorted(images.keys() & others.keys()):
        raise UserError(
            f"{others[name]} is no image file that is read, and {images[name]} has no mask. Save it as PNG."
        )


def find_mask_suffix(images: Collection[str], masks: Collection[str]) -> str:
    """What most of the masks' names have after an image's, such as `_mask`; empty if there is nothing."""
    found: Counter[str] = Counter()
    for name in masks:
        start = name.rfind("/") + 2  # a name has one character at least
        ends = [index for index in range(start, len(name)) if not name[index].isalnum() and name[:index] in images]
        found.update(name[index:] for index in ends[-1:] if name[index:].strip())
    return found.most_common(1)[0][0] if found else ""
