"""Class files: the names, and perhaps the colours, of the ids in a mask.

    classes.txt          one name on each line, in the order of the ids; or `0 sky`, `1: road` on each; or with the
                         colours, or for masks of greys the greys, that the masks have: `road 255 255 255`
    classes.json, .yaml  ["sky", "road"], {"0": "sky", "1": "road"}, or
                         [{"id": 0, "name": "sky", "color": [128, 128, 128]}, ...]

What CVAT, Roboflow and labelme export is read too, see `hfseg.data.class_formats`. Ids run from 0 without gaps. The
ignore index (`data.ignore_index`; otherwise 255, or 65535 for more than 255 classes) may be listed as well, which says
what unlabelled pixels are called and, in a colour table, how they look. Beside a `data.ignore_index` of its own, 255
counts only if it is listed: such pixels do not count either.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hfseg.data.class_formats import Entry, read_entries
from hfseg.errors import UserError, shown
from hfseg.labels import Colour, LabelSet

OWN_FILES = ("classes.txt", "classes.json", "classes.yaml", "classes.yml", "id2label.json")
CLASS_FILES = (*OWN_FILES, "labelmap.txt", "_classes.csv", "class_dict.csv", "label_colors.txt", "labels.txt")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassTable:
    """What a class file says.

    Attributes:
        labels: the classes, and the index of pixels that do not count.
        colours: (red, green, blue) -> id, those of ignored pixels too; empty if the file has none.
        void: ids that are said not to count, by the file or by `data.ignore_index`; all become the ignore index.
    """

    labels: LabelSet
    colours: tuple[tuple[Colour, int], ...] = ()
    void: tuple[int, ...] = ()


def find_class_file(folder: Path, chosen: Path | None) -> Path:
    """The class file: `chosen`, in the folder or from anywhere, or the one that the folder has.

    Where those of other programs contradict one of `OWN_FILES`, that one counts, and a line names the others.

    Raises:
        UserError: there is none, or none is chosen of several that do not say the same.
    """
    candidates = [folder / chosen, chosen] if chosen else [folder / name for name in CLASS_FILES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(
            f"There is no class file {chosen or ' or '.join(CLASS_FILES)} in {folder}. Write one, with a class name "
            "on each line in the order of the ids, or set data.classes to its path."
        )
    own = [path for path in found if path.name in OWN_FILES]
    try:
        return found[0] if chosen or len(found) == 1 else _choose(folder, found)
    except UserError:
        if not own or len(own) == len(found):
            raise
    counts = own[0] if len(own) == 1 else _choose(folder, own)
    others = ", ".join(path.name for path in found if path not in own)
    logger.warning("%s names the classes; not the same, and not read: %s. data.classes chooses.", counts, others)
    return counts


def read_class_table(path: Path, ignore_index: int | None = None) -> ClassTable:
    """Reads a class file.

    Args:
        path: the file.
        ignore_index: id of the pixels that do not count, also one of the classes'; None is 255, or 65535 for more
            than 255 classes.

    Raises:
        UserError: it is unreadable or says something impossible; names the line or the entry.
    """
    return _table(str(path), read_entries(path), ignore_index)


def named_classes(names: Sequence[str], ignore_index: int | None = None) -> ClassTable:
    """The same from the names themselves, in the order of the ids; raises UserError for a name that is none."""
    if not names or not all(name.strip() for name in names):
        raise UserError(f"data.classes={shown(list(names))} needs a name for every id. Give each class a name.")
    return _table("data.classes", {index: Entry(name=name.strip()) for index, name in enumerate(names)}, ignore_index)


def list_with_greys(names: Sequence[str], greys: Sequence[int]) -> str:
    """The lines of a class file by which masks of these greys are read, for a remedy."""
    return ", ".join(f"`{name} {grey} {grey} {grey}`" for name, grey in zip(names, greys, strict=True))


def _choose(folder: Path, found: Sequence[Path]) -> Path:
    """Of several class files that say the same, one with colours; raises UserError where they differ."""
    try:
        tables = {path: read_entries(path) for path in found}
    except UserError as error:
        others = " and ".join(path.name for path in found)
        raise UserError(f"{error} There are {others}: to read one alone, set data.classes to it.") from error
    first = tables[found[0]]
    for path, table in tables.items():
        differing = [id_ for id_ in sorted({*first, *table}) if _name(first, id_) != _name(table, id_)]
        if differing:
            id_ = differing[0]
            raise UserError(
                f"{folder} holds class files that do not agree: id {id_} is {_name(first, id_)} in {found[0].name}, "
                f"but {_name(table, id_)} in {path.name}. Set data.classes to one of them: the one by which the masks "
                "were made."
            )
    coloured = [path for path in found if any(entry.color for entry in tables[path].values())]
    colours = {tuple(entry.color for entry in tables[path].values()) for path in coloured}
    if len(colours) > 1:
        names = " and ".join(path.name for path in coloured)
        raise UserError(f"{folder}: the colours in {names} do not agree. Set data.classes to one of them.")
    return [*coloured, *found][0]


def _name(table: Mapping[int, Entry], id_: int) -> str:
    return shown(table[id_].name) if id_ in table else "missing"


def _table(where: str, entries: dict[int, Entry], ignore_index: int | None) -> ClassTable:
    """Checks what a class file says; `where` names it."""
    num_labels = next(index for index in range(len(entries) + 1) if index not in entries)
    default = 255 if num_labels <= 255 else 65535
    ignored = default if ignore_index is None else ignore_index
    beyond = sorted(id_ for id_ in entries if id_ >= num_labels)
    if not num_labels or not {*beyond} <= {default, ignored}:
        raise UserError(_explain_ids(where, sorted(entries), default))
    classes = [entries[index] for index in range(num_labels)]
    _check_names(where, classes, ignored)
    colours = _colours(where, classes)
    table = [(colour, index) for index, colour in enumerate(colours)]
    for id_ in beyond:
        void_colour = entries[id_].color
        table += [(void_colour, ignored)] if void_colour and table else []
    clashing = [colour for colour, count in Counter(colour for colour, _ in table).items() if count > 1]
    if clashing:
        raise UserError(f"{where}: {clashing[0]} is the colour of more than one class. Give each its own.")
    labels = LabelSet([entry.name for entry in classes], ignored, palette=colours or None)
    said = {*beyond} if ignore_index is None else {*beyond, ignore_index}
    return ClassTable(labels, tuple(table), tuple(sorted(said)))


def _check_names(where: str, classes: Sequence[Entry], ignored: int) -> None:
    repeated = [name for name, count in Counter(entry.name for entry in classes).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: {shown(repeated[0])} is the name of more than one class. Give each its own.")
    counted = [entry.name for index, entry in enumerate(classes) if index != ignored]
    if len(counted) < 2:
        name = counted[0] if counted and counted[0] != "background" else "object"
        raise UserError(
            f"{where}: only one class counts, so that every answer would be right. List the background too, in a "
            "text file that data.classes names, a line each. For masks of 0 and 1: "
            f"`background`, `{name}`; for masks of 0 and 255: {list_with_greys(['background', name], [0, 255])}."
        )


def _explain_ids(where: str, ids: list[int], default: int) -> str:
    if ids[0] == 1 and ids == list(range(1, len(ids) + 1)):
        return (
            f"{where}: the ids begin with 1. If the masks hold 0, list it, such as `0 background`, and if 0 is "
            "unlabelled, set data.ignore_index=0 as well. If 0 never occurs, set data.reduce_labels=true and list the "
            "ids from 0."
        )
    return (
        f"{where}: the ids are {_shorten(ids)}, but must be 0..{len(ids) - 1} without gaps, and perhaps {default} for "
        "unlabelled pixels. Renumber the classes, and the masks with them, or list the ids between them as unused; an "
        "id of unlabelled pixels is told by data.ignore_index."
    )


def _colours(where: str, classes: Sequence[Entry]) -> list[Colour]:
    colours = [entry.color for entry in classes if entry.color is not None]
    if colours and len(colours) < len(classes):
        without = next(entry.name for entry in classes if entry.color is None)
        raise UserError(f"{where}: {shown(without)} has no color, but others have. Give every class a color, or none.")
    return colours


def _shorten(ids: list[int]) -> str:
    return str(ids) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:10]))}, ... {ids[-1]}]"
