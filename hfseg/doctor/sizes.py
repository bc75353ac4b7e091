"""What label maps say before training: the sizes of the images, and which splits hold labels at all."""

import datasets

from hfseg.data import EncodedRows, file_of_cell, reading, undecoded
from hfseg.doctor.inspection import open_file, read_header
from hfseg.errors import shown

Size = tuple[int, int]


def image_sizes(data: datasets.Dataset) -> dict[str, Size]:
    """Name -> (height, width), from the headers of the label maps, which are as large as their images.

    Nothing is decoded: 20,000 of them take a second.

    Raises:
        UserError: a label map cannot be read; names the sample.
    """
    sizes = {}
    for row in undecoded(data).select_columns(["name", "label"]):
        where = f"The label map of sample {shown(row['name'])}"
        with reading(where), open_file(file_of_cell(row["label"]) or b"") as image:
            width, height = read_header(image).upright
        sizes[row["name"]] = (height, width)
    return sizes


def has_pixels(data: datasets.Dataset, ignore_index: int, index: int | None = None) -> bool:
    """Whether a split has a pixel of a class, or of any class; stops at the first."""
    rows = EncodedRows(data)
    for number in range(len(rows)):
        label = rows[number].label
        found = label != ignore_index
        if index is not None:
            found &= label == index
        if found.any():
            return True
    return False
