"""One look for all figures, drawn without a display: fonts, colours, and how a figure becomes a file.

Colours are those of Okabe & Ito (2008), which people with any colour vision can tell apart.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path

from matplotlib import font_manager, rc_context
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from hfseg.errors import printable
from hfseg.files import writing, written_whole

DPI = 110
UNDEFINED = "\N{EN DASH}"
INK = "#1f2329"  # of text and lines; becomes the page's colour in `inline_svg`
BLUE, VERMILION = "#0072B2", "#D55E00"
MAX_HEIGHT, MAX_HEIGHT_NAMES = 200.0, 1200  # inches of bars, and how many class names have room along them
# Of fonts that operating systems come with, those that have what Matplotlib's own lacks: it knows no Chinese.
WIDE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "PingFang SC", "PingFang HK", "Hiragino Sans GB", "Arial Unicode MS", "Microsoft YaHei",
    "SimHei", "Yu Gothic", "Malgun Gothic", "Unifont",
)  # fmt: skip
HAS_FONT = {font.name for font in font_manager.fontManager.ttflist}
STYLE = {
    "font.family": ["sans-serif", *(name for name in WIDE_FONTS if name in HAS_FONT)],  # letter by letter
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called "$5 and $10"
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "hfseg",  # the same figure gives the same file
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": INK for part in ("labelcolor", "edgecolor", "titlecolor")},
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

logger = logging.getLogger(__name__)


def name_classes(axis: Axis, names: Sequence[str], at_most: int) -> None:
    """Writes the classes' names along an axis that has one place for each; of more than `at_most`, every nth."""
    places = range(0, len(names), ceil(len(names) / at_most))
    axis.set_ticks(places, [printable(names[place]) for place in places])


class NotebookFigure(Figure):
    """A figure that a notebook shows once, as the value of a cell: pyplot neither knows it nor has to be imported."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        with rc_context(STYLE), missing_letters_logged_once():
            self.savefig(file, format="png", dpi=DPI)
        return file.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a `.png` or `.svg` (white behind it)."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    with rc_context(STYLE), missing_letters_logged_once(), written_whole(path) as partial:
        figure.savefig(partial, format=kind, dpi=DPI, metadata=NO_METADATA if kind == "svg" else None)


@contextmanager
def missing_letters_logged_once() -> Iterator[None]:
    """Around drawing: letters that no font has become boxes, which is logged once and not warned of for each."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if "missing from" in str(warning.message):
            log_boxes()
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@cache
def log_boxes() -> None:
    logger.warning(
        "No font of this machine has all letters of the names: they are boxes in the figures (report.html has the "
        "text). Install one that has, such as Noto Sans CJK (package fonts-noto-cjk)."
    )
