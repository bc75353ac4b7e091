"""From the splits that a data set has to train, validation and test: the same rule for folders and for the Hub."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from hfseg.errors import UserError

# What the three splits are called, here and elsewhere.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
Samples = TypeVar("Samples")


def find_splits(names: Collection[str], where: str) -> dict[str, str]:
    """Which of the names mean `train`, `validation` and `test`, in any case.

    Raises:
        UserError: two names for one split, such as `val` and `validation`.
    """
    found = {}
    for split, known in SPLIT_NAMES.items():
        here = [name for name in names if name.lower() in known]
        if len(here) > 1:
            raise UserError(f"{where} holds {' and '.join(here)}, which both mean the {split} split. Keep one.")
        if here:
            found[split] = here[0]
    return found


def complete_splits(
    found: Mapping[str, Samples], hold_out: Callable[[Samples, str], tuple[Samples, Samples]], where: str
) -> dict[str, Samples]:
    """Makes all three splits of those that have labels.

    Validation chooses and test is scored once. Where there is no labelled test, validation becomes the test and a
    fixed part of train is held out for choosing; where there is train alone, two parts of it are.

    Args:
        found: the labelled splits that are there.
        hold_out: (samples, split) -> what is left for training, and the part for that split.
        where: what errors call the data set.

    Raises:
        UserError: there is nothing to train on.
    """
    if "train" not in found:
        have = ", ".join(found) or "none"
        raise UserError(f"{where} has no train split (found: {have}). Its names may be {SPLIT_NAMES['train']}.")
    splits, train = dict(found), found["train"]
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    for split in ("test", "validation"):
        if split not in splits:
            train, splits[split] = hold_out(train, split)
    return {"train": train, "validation": splits["validation"], "test": splits["test"]}
