"""What to do about masks whose values are no class ids, as the reader of masks and the label doctor say it."""

from collections.abc import Collection

import numpy as np

from hfseg.data.classes import list_with_greys
from hfseg.labels import LabelSet

MIN_GREY_RANGE = 100  # of 255


def looks_grey(values: Collection[int], at_least: int, num_labels: int) -> bool:
    """Whether values are spread over 0..255 as greys of the classes are, such as 0, 127, 254; ids lie side by side."""
    is_spread = len(values) >= at_least and min(np.diff(sorted(values))) >= max(2, MIN_GREY_RANGE / num_labels)
    return bool(is_spread and min(values) >= 0)


def list_greys(values: Collection[int], labels: LabelSet) -> str:
    """Where the classes were drawn as greys: the lines of a class file by which they are read.

    Args:
        values: of all masks, as stored.
        labels: the classes as they are listed now.
    """
    greys = sorted(value for value in values if 0 <= value <= 255)
    if len(greys) == labels.num_labels:
        lines = list_with_greys(labels.names, greys)
        return f"List each class with its grey in a text file, a line each, and set data.classes to it: {lines}."
    return (
        "List each class with its grey in a text file, such as `0 sky 0 0 0` and `1 road 255 255 255`, a line each, "
        "and set data.classes to it; a grey that is unlabelled has id 255 there, as in `255 unlabelled 128 128 128`."
    )


def place_ids(unknown: Collection[int], values: Collection[int], labels: LabelSet) -> str:
    """Where ids are outside of the class list: the keys that may be meant.

    Args:
        unknown: the ids that are neither a class nor the ignore index.
        values: all ids of the masks.
        labels: the classes.
    """
    if looks_grey(values, 3, labels.num_labels):
        return f"If the values are greys of the classes: {list_greys(values, labels)}"
    if len(unknown) != 1:
        return "Correct the mask, or complete the class list, or read it with the data.name it belongs to."
    [id_] = unknown
    remedies = []
    if id_ == labels.num_labels:
        remedies.append("If 0 is unlabelled and the classes start at 1, set data.reduce_labels=true.")
    if id_ == 255:
        remedies.append(
            "If 255 is unlabelled, list it in the class file, where every name has its id, as `255 unlabelled`."
        )
    elif labels.ignore_index not in (255, 65535):
        remedies.append(f"If {id_} is unlabelled too, change it to {labels.ignore_index} in the masks.")
    else:
        also = " and list `255 unlabelled` in the class file" if 255 in values else ""
        remedies.append(f"If {id_} is unlabelled, set data.ignore_index={id_}{also}.")
    return " ".join([*remedies, "If it is a class, add it to the class list; otherwise correct the mask."])
