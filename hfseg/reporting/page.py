"""Parts of a self-contained HTML page: no script, nothing loaded, light and dark, from a phone's width to a desk's.

Arguments called `html` are markup and stay as they are; everything else is text and is escaped here.
"""

import base64
import html as markup
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.errors import printable
from hfseg.labels import Colour
from hfseg.reporting.figures import UNDEFINED

CSS = """
:root { color-scheme: light dark; --ink: #1f2329; --dim: #59636e; --line: #d1d9e0; --back: #ffffff; --soft: #f6f8fa;
  --bar: #0072b2; --cell: #4fa3d1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117;
  --soft: #161c24; --bar: #56b4e9; --cell: #1f7ab3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 66rem; background: var(--back); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
.dim, figcaption, caption { color: var(--dim); font-size: .875rem; }
.caveat { border-left: 4px solid #d55e00; padding-left: .75rem; font-weight: 600; }
.missing { border-left: 4px solid var(--line); padding-left: .75rem; color: var(--dim); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.cards > div { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem; }
.cards dt { color: var(--dim); font-size: .875rem; }
.cards dd { margin: 0; font-size: 1.6rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards dd small { display: block; font-size: .875rem; font-weight: 400; color: var(--dim); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
.facts dt { color: var(--dim); }
.facts dd { margin: 0; min-width: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; z-index: 1; position: sticky; left: 0; background: var(--back); font-weight: 500; }
thead th { color: var(--dim); font-weight: 600; vertical-align: bottom; }
td.bar { min-width: 6rem; padding-bottom: .5rem; background: linear-gradient(90deg, var(--bar) calc(var(--v) * 100%),
  var(--soft) 0) no-repeat .7rem calc(100% - .2rem) / calc(100% - 1.4rem) .25rem; }
.matrix td { text-align: center; min-width: 2.6rem; padding: .3rem; border: 1px solid var(--back);
  background: color-mix(in srgb, var(--cell) calc(var(--v, 0) * 85%), var(--soft)); }
.matrix td.none { background: none; }
.matrix .down th:not(:first-child) { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  padding: .5rem .1rem; border: 0; }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .45em;
  box-shadow: 0 0 0 1px var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .875rem; margin: .5rem 0; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.row > figure { max-width: 34rem; }
figure { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
.pictures { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; margin: .25rem 0 1.25rem; }
.pictures img { display: block; width: 100%; height: auto; border-radius: .25rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; font-weight: 500; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem 1rem;
  overflow-x: auto; font-size: .85rem; line-height: 1.4; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .875em; }
@media (max-width: 40rem) { .pictures { grid-template-columns: 1fr 1fr; } .facts { grid-template-columns: 1fr;
  gap: 0; } .facts dd { margin-bottom: .6rem; } th, td { padding: .3rem .5rem; }
  tbody th { white-space: normal; min-width: 8.5rem; max-width: 10rem; } }
@media print { details > * { display: block; } h2, figure, tr { break-inside: avoid; } }
"""


def page(title: str, html: str) -> str:
    """A whole document with its style sheet in it."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
{html}
</main>
</body>
</html>
"""


def escape(text: object) -> str:
    """Text as it may stand in markup and in quoted attributes."""
    return markup.escape(printable(str(text)))


def section(heading: str, *html: str) -> str:
    return "\n".join(["<section>", f"<h2>{escape(heading)}</h2>", *html, "</section>"])


def paragraph(text: str, css_class: str = "") -> str:
    return f'<p class="{css_class}">{escape(text)}</p>' if css_class else f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """A sentence in place of what cannot be shown."""
    return paragraph(text, "missing")


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """Headline numbers: (what, value, a line below it)."""
    shown = (
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}<small>{escape(below)}</small></dd></div>"
        for what, value, below in entries
    )
    return "\n".join(['<dl class="cards">', *shown, "</dl>"])


def facts(entries: Mapping[str, str]) -> str:
    """Names and their markup, one below the other."""
    shown = (f"<dt>{escape(name)}</dt><dd>{html}</dd>" for name, html in entries.items())
    return "\n".join(['<dl class="facts">', *shown, "</dl>"])


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, css_class: str = "") -> str:
    """A table that scrolls inside itself where it is too wide.

    Args:
        head: the columns' names.
        rows: the first cell (markup) names the row; the others are cells as `cell`, `bar` and `share` make them.
        caption: what the table shows.
        css_class: "matrix" for a confusion matrix.
    """
    is_long = css_class == "matrix" and len(head) > 6
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = [f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>' for first, *cells in rows]
    region = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
    header = f"<thead>{'<tr class=down>' if is_long else '<tr>'}{columns}</tr></thead>"
    body = "\n".join(["<tbody>", *lines, "</tbody>"])
    opening = f'<table class="{css_class}">' if css_class else "<table>"
    return f"{region}\n{opening}<caption>{escape(caption)}</caption>\n{header}\n{body}\n</table></div>"


def cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def bar(value: float | None, text: str | None = None) -> str:
    """A cell with a number of 0..1 and a bar of that length behind it."""
    if value is None:
        return cell(UNDEFINED)
    return f'<td class="bar" style="--v:{value:.3f}">{escape(f"{value:.3f}" if text is None else text)}</td>'


def share(value: float, hint: str) -> str:
    """A cell of a confusion matrix: a row's share, coloured by it; nothing where it rounds to nothing."""
    if np.isnan(value):
        return f'<td class="none">{UNDEFINED}</td>'
    text = f"{100 * value:.0f}" if value >= 0.005 else ""
    return f'<td style="--v:{value:.3f}" title="{escape(hint)}">{text}</td>'


def swatch(colour: Colour) -> str:
    """A small square of a colour."""
    return f'<span class="swatch" style="background:rgb({colour[0]} {colour[1]} {colour[2]})"></span>'


def figure(html: str, caption: str = "") -> str:
    """An SVG with a line below it."""
    return f"<figure>{html}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def picture(pixels: NDArray[np.uint8], alt: str, caption: str) -> str:
    """A photograph (H, W, 3) inside the page."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=85, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = pixels.shape[:2]
    image = f'<img width="{width}" height="{height}" alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
    return figure(image, caption)


def details(summary: str, html: str) -> str:
    """Folded away until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>\n{html}\n</details>"
