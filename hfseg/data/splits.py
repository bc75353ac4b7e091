"""Which samples are train, validation and test: the same rule for folders and for the Hub.

`dev` and `eval` are validation where nothing else is. A split of another name (`unlabeled`, `holdout`) is not read:
data sets of the Hub have such splits, which only their owners can remove. A line in the log says both.
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from hfseg.data.source import Pair
from hfseg.errors import UserError, shown

logger = logging.getLogger(__name__)

HELD_OUT_PERCENT = 10
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

    Raises UserError for two names of one split, such as `val` and `validation`, or `dev` and `eval`.
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
    """Raises UserError where `train2017` and `val2017` would be taken together, and images of both be trained on."""
    known = {word: split for split, words in SPLIT_NAMES.items() for word in words}
    known |= dict.fromkeys(DEVELOPMENT_NAMES, "validation")
    likely = {name: known[word] for name in names for word in re.findall("[a-z]+", name.lower()) if word in known}
    if len({*likely.values()}) > 1:
        raise UserError(
            f"{where}: {' and '.join(map(shown, list(likely)[:MAX_NAMES]))} seem to be of several splits, but would "
            "be taken for one. Rename them: splits are called train, val and test; in other names no such word may be."
        )


def warn_unread(names: Collection[str], found: Mapping[str, str], where: str) -> None:
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
        where: what errors call the data set. UserError is raised where there is nothing to train on.
    """
    if "train" not in found:
        have = ", ".join(found) or "none"
        raise UserError(f"{where} has no train split (found: {have}). Call the split to train on train or training.")
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


def choose_held_out(names: Sequence[str]) -> set[int]:
    """Which 10 % of the names, at least one, are held out: those whose hashes are the smallest."""
    ranked = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).hexdigest())
    return set(ranked[: max(1, round(len(names) * HELD_OUT_PERCENT / 100))])


def hold_out(pairs: Sequence[Pair], group: Callable[[Pair], str]) -> tuple[list[Pair], list[Pair]]:
    """What is left of the pairs, and 10 % of each group, at least one, for validation, by their names alone."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[group(pair)].append(pair)
    held_out = {each[index] for each in groups.values() for index in choose_held_out([pair.name for pair in each])}
    train = [pair for pair in pairs if pair not in held_out]
    if not train:
        raise UserError(f"{len(pairs)} training images: none is left after one of each kind is held out. Add images.")
    return train, [pair for pair in pairs if pair in held_out]
