"""Which classes a data set has: the names, and perhaps the colours, of the ids in a mask.

    classes.txt          one name on each line, in the order of the ids; or `0 sky`, `1: road` on each; or with the
                         colours, or for masks of greys the greys, that the masks have: `road 255 255 255`
    classes.json, .yaml  ["sky", "road"], {"0": "sky", "1": "road"}, or
                         [{"id": 0, "name": "sky", "color": [128, 128, 128]}, ...]

What CVAT, Roboflow and labelme export is read too, see `hfseg.data.class_files`. Ids run from 0 without gaps. The
ignore index (`data.ignore_index`; otherwise 255, or 65535 for more than 255 classes) may be listed as well, which says
what unlabelled pixels are called and, in a colour table, how they look. Beside a `data.ignore_index` of its own, 255
counts only if it is listed: such pixels do not count either.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfseg.data.class_files import Entry, read_entries
from hfseg.errors import UserError, shown
from hfseg.labels import Colour, LabelSet

OWN_FILES = ("classes.txt", "classes.json", "classes.yaml", "classes.yml", "id2label.json")
CLASS_FILES = (*OWN_FILES, "labelmap.txt", "_classes.csv", "class_dict.csv", "label_colors.txt", "labels.txt")
MAX_IDS = 12  # in a message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassTable:
    """What a class file says.

    Attributes:
        labels: the classes, and the index of pixels that do not count.
        colours: (red, green, blue) -> id, those of ignored pixels too; empty if the file has none.
        void: ids that do not count, by the class file or by `data.ignore_index`; all become the ignore index.
    """

    labels: LabelSet
    colours: tuple[tuple[Colour, int], ...] = ()
    void: tuple[int, ...] = ()


def find_class_file(folder: Path, chosen: Path | None) -> Path:
    """The class file: `chosen`, in the folder or from anywhere, or the one that the folder has.

    Where those of other programs contradict one of `OWN_FILES`, that one counts, and a line names the others.
    UserError is raised where there is none, or none is chosen of several that do not say the same.
    """
    candidates = [folder / chosen, chosen] if chosen else [folder / name for name in CLASS_FILES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(
            f"There is no class file {chosen or ' or '.join(CLASS_FILES)} in {folder}. Write one, with a class name "
            "on each line in the order of the ids, or set data.classes to its path."
        )
    if chosen:
        return found[0]
    own = [path for path in found if path.name in OWN_FILES]
    try:
        return _choose(found)
    except UserError:
        if len(own) in (0, len(found)):
            raise
    counts = _choose(own)
    others = ", ".join(path.name for path in found if path not in own)
    logger.warning("%s names the classes; not the same, and not read: %s. data.classes chooses.", counts, others)
    return counts


def _choose(found: Sequence[Path]) -> Path:
    """Of several class files that say the same, one with colours; raises UserError where they differ."""
    if len(found) == 1:
        return found[0]
    try:
        tables = {path: read_entries(path) for path in found}
    except UserError as error:
        others = " and ".join(path.name for path in found)
        raise UserError(f"{error} There are {others}: to read one alone, set data.classes to it.") from error
    folder = found[0].parent
    names = {path: {id_: shown(entry.name) for id_, entry in table.items()} for path, table in tables.items()}
    first = names[found[0]]
    for path, other in names.items():
        for id_ in sorted({*first, *other}):
            if first.get(id_) != other.get(id_):
                raise UserError(
                    f"{folder} holds class files that do not agree: id {id_} is {first.get(id_, 'missing')} in "
                    f"{found[0].name}, but {other.get(id_, 'missing')} in {path.name}. Set data.classes to one of "
                    "them: the one by which the masks were made."
                )
    colours = {path: tuple(entry.color for entry in table.values()) for path, table in tables.items()}
    coloured = [path for path in found if any(colours[path])]
    if len({colours[path] for path in coloured}) > 1:
        listed = " and ".join(path.name for path in coloured)
        raise UserError(f"{folder}: the colours in {listed} do not agree. Set data.classes to one of them.")
    return [*coloured, *found][0]


def read_class_table(path: Path, ignore_index: int | None = None) -> ClassTable:
    """Reads a class file; UserError where it is unreadable or says something impossible names the line or the entry.

    `ignore_index` may be the id of a class; None is 255, or 65535 for more than 255 classes.
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


def _table(where: str, entries: dict[int, Entry], ignore_index: int | None) -> ClassTable:
    """Checks what a class file says; `where` names it."""
    num_labels = next(index for index in range(len(entries) + 1) if index not in entries)
    default = 255 if num_labels <= 255 else 65535
    ignored = default if ignore_index is None else ignore_index
    beyond = sorted(id_ for id_ in entries if id_ >= num_labels)
    if not num_labels or not {*beyond} <= {default, ignored}:
        raise UserError(_explain_ids(where, sorted(entries), default))
    classes = [entries[index] for index in range(num_labels)]
    _check_names(where, [entry.name for entry in classes], ignored)
    colours = [(entry.color, index) for index, entry in enumerate(classes) if entry.color]
    if colours and len(colours) < num_labels:
        without = next(entry.name for entry in classes if entry.color is None)
        raise UserError(f"{where}: {shown(without)} has no color, but others have. Give every class a color, or none.")
    labels = LabelSet([entry.name for entry in classes], ignored, palette=[colour for colour, _ in colours] or None)
    if colours:
        colours += [(colour, ignored) for id_ in beyond if (colour := entries[id_].color)]
        [(most_frequent, count)] = Counter(colour for colour, _ in colours).most_common(1)
        if count > 1:
            raise UserError(f"{where}: {most_frequent} is the colour of more than one class. Give each its own.")
    void = {*beyond} if ignore_index is None else {*beyond, ignore_index}
    return ClassTable(labels, tuple(colours), tuple(sorted(void)))


def _check_names(where: str, names: Sequence[str], ignored: int) -> None:
    [(most_frequent, count)] = Counter(names).most_common(1)
    if count > 1:
        raise UserError(f"{where}: {shown(most_frequent)} is the name of more than one class. Give each its own.")
    counted = [name for index, name in enumerate(names) if index != ignored]
    if len(counted) < 2:
        name = counted[0] if counted and counted[0] != "background" else "object"
        raise UserError(
            f"{where}: only one class counts, so that every answer would be right. List the background too, a line "
            f"each, in a text file that data.classes names. For masks of 0 and 1: `background`, `{name}`; for masks "
            f"of 0 and 255: {list_with_greys(['background', name], [0, 255])}."
        )


def _explain_ids(where: str, ids: list[int], default: int) -> str:
    if ids == list(range(1, len(ids) + 1)):
        return (
            f"{where}: the ids begin with 1. If the masks hold 0, list it, such as `0 background`; if it is void, "
            "set data.ignore_index=0 too. If 0 never occurs, set data.reduce_labels=true and list the ids from 0."
        )
    listed = str(ids) if len(ids) <= MAX_IDS else f"[{', '.join(map(str, ids[:10]))}, ... {ids[-1]}]"
    return (
        f"{where}: the ids are {listed}, but must be 0..{len(ids) - 1} without gaps, and perhaps {default} for "
        "unlabelled pixels, whose id is told by data.ignore_index. Renumber classes and masks, or list ids as unused."
    )
