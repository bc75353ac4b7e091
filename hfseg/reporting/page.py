"""Pages and Markdown from the package's Jinja templates; everything in them is text unless a template says `safe`."""

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from hfseg.errors import printable
from hfseg.reporting.style import INK, NO_METADATA, STYLE, UNDEFINED, missing_letters_logged_once


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template.

    Args:
        template: its path below `hfseg/`, such as `study/study.md.jinja`. In `.md.jinja`, texts are escaped for
            Markdown, in all others for HTML.
        values: what the template calls them -> what they are.
    """
    environment = Environment(
        loader=PackageLoader("hfseg", ""),
        autoescape=True,
        finalize=_in_markdown if template.endswith(".md.jinja") else _in_html,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"jpeg": jpeg_data, "number": number, "svg": inline_svg}
    return environment.get_template(template).render(values)


def _in_html(value: Any) -> Any:
    return printable(value) if type(value) is str else value


def _in_markdown(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape_markdown(str(value)))


def escape_markdown(text: str) -> str:
    """Any text inside a table's cell or a paragraph, shown as it is."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(text.split()))


def number(value: float | None, digits: int = 3) -> str:
    """A score with so many digits; a dash where it is undefined."""
    return UNDEFINED if value is None or np.isnan(value) else f"{value:.{digits}f}"


def jpeg_data(pixels: NDArray[np.uint8]) -> str:
    """A photograph (H, W, 3) as the address of an image inside a page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=85, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def inline_svg(figure: Figure, title: str) -> Markup:
    """The figure as an `<svg>` element for a page: scales to its column, text and lines in the page's colour.

    Args:
        figure: any figure without pictures in it.
        title: what it shows, for people who listen to the page.
    """
    file = io.StringIO()
    # another salt, other ids: several figures share a page
    with rc_context(STYLE | {"svg.hashsalt": title}), missing_letters_logged_once():
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # "axes_1" in every figure of the page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)  # HTML knows them
    width, height = (72 * inches for inches in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:g} {height:g}">'
    return Markup(opening + svg[svg.index(">") + 1 :].strip())
