"""From the splits that a data set has to train, validation and test: the same rule for folders and for the Hub.

`dev` and `eval` are validation where nothing else is, and a line says so. A split of another name (`unlabeled`,
`holdout`) is not read, and a line names it: data sets of the Hub have such splits, which only their owners can remove.
No split is dropped without a word.
"""

import logging
import re
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from hfseg.errors import UserError, shown

logger = logging.getLogger(__name__)

# What the three splits are called, here and elsewhere.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
# What is taken for validation where none of those names is there.
DEVELOPMENT_NAMES = ("dev", "devel", "development", "eval", "evaluation")
MAX_NAMES = 4  # in a message
Samples = TypeVar("Samples")


def find_splits(names: Collection[str], where: str) -> dict[str, str]:
    """Which of the names mean `train`, `validation` and `test`, in any case; a line says what `dev` is taken for.

    Raises:
        UserError: two names for one split, such as `val` and `validation`, or `dev` and `eval`.
    """
    found = {split: _one_of(known, split, names, where) for split, known in SPLIT_NAMES.items()}
    if found["validation"] is None:
        found["validation"] = _one_of(DEVELOPMENT_NAMES, "validation", names, where)
        if found["validation"] is not None:
            logger.warning("%s: its split %s is taken for validation.", where, shown(found["validation"]))
    return {split: name for split, name in found.items() if name is not None}


def _one_of(known: Collection[str], split: str, names: Collection[str], where: str) -> str | None:
    here = [name for name in names if name.lower() in known]
    if len(here) > 1:
        raise UserError(f"{where} holds {' and '.join(here)}, which both mean the {split} split. Keep one.")
    return here[0] if here else None


def check_likely_splits(names: Collection[str], where: str) -> None:
    """Raises UserError where `train2017` and `val2017` would be taken together, and images of both be trained on.

    Args:
        names: of folders or files, none of which is called as a split.
        where: what errors call the data set.
    """
    known = {word: split for split, words in SPLIT_NAMES.items() for word in words}
    known |= dict.fromkeys(DEVELOPMENT_NAMES, "validation")
    likely = {name: known[word] for name in names for word in re.findall("[a-z]+", name.lower()) if word in known}
    if len({*likely.values()}) > 1:
        raise UserError(
            f"{where}: {' and '.join(map(shown, list(likely)[:MAX_NAMES]))} seem to be of several splits, but are "
            "not called so and would be taken for one. Rename them: splits are called train, val and test; if they "
            "are one, none of these words may be in their names."
        )


def tell_unread(names: Collection[str], found: Mapping[str, str], where: str) -> None:
    """A line that names the splits of `names` that `find_splits` has not `found`, if there are any."""
    unread = [name for name in names if name not in found.values()]
    if unread:
        known = ", ".join(name for split in SPLIT_NAMES.values() for name in split)
        logger.warning(
            "%s: not read are its splits %s, whose names are none of %s.", where, ", ".join(map(shown, unread)), known
        )


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
        names = " or ".join(SPLIT_NAMES["train"])
        raise UserError(f"{where} has no train split (found: {have}). Call the split to train on {names}.")
    splits, train = dict(found), found["train"]
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        logger.warning(
            "%s: there is no labelled test split, so validation is the test, and part of train chooses.", where
        )
    for split in ("test", "validation"):
        if split not in splits:
            train, splits[split] = hold_out(train, split)
    return {"train": train, "validation": splits["validation"], "test": splits["test"]}
