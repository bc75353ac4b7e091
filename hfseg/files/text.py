"""Text files that somebody else may have written, read within limits: the one door, whatever the text is."""

import codecs
from pathlib import Path

from hfseg.errors import UserError, shown

MAX_BYTES = 1 << 20  # of a config or a class file, which have a few thousand


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with the mark of that.

    Raises:
        UserError: it is no regular file (a pipe would never end), too large, or cannot be read as such.
    """
    data = _read_bytes(path, max_bytes)
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({shown(error)}). Save it as UTF-8.") from error
    if "\0" in text:
        raise UserError(f"{path} holds null characters, as UTF-16 without its mark does. Save it as UTF-8.")
    return text


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    try:
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file" if path.exists() else "not there"
            raise UserError(f"{path} is {kind}, where a text file is needed.")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {shown(error)}.") from error
    if len(content) > max_bytes:
        raise UserError(f"{path} has more than the {max_bytes} bytes that are read.")
    return content
