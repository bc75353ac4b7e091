"""Tables that a notebook shows in place of a value's `repr`."""

from collections.abc import Iterable, Sequence
from html import escape

from hfseg.errors import printable

LEFT = 'style="text-align:left"'  # notebooks put it to the right


def html_table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[str]], colours: Sequence[tuple[int, int, int]] = ()
) -> str:
    """A table as HTML, in which every text is shown as it is.

    Args:
        title: what stands above it.
        head: the columns' names.
        rows: a text for each column.
        colours: red, green and blue of 0..255, for a square at the beginning of each of the first rows.
    """
    lines = [f"<table><caption>{_text(title)}</caption>", f"<tr>{_cells('th', map(_text, head))}</tr>"]
    for number, row in enumerate(rows):
        square = _square(*colours[number]) if number < len(colours) else ""
        lines.append(f"<tr>{_cells('td', [square + _text(row[0]), *map(_text, row[1:])])}</tr>")
    return "\n".join([*lines, "</table>"])


def _cells(tag: str, cells: Iterable[str]) -> str:
    return "".join(f"<{tag} {LEFT}>{cell}</{tag}>" for cell in cells)


def _square(red: int, green: int, blue: int) -> str:
    return f'<span style="background:rgb({red},{green},{blue});padding:0 .6em;margin-right:.6em"></span>'


def _text(text: str) -> str:
    return escape(printable(text))
