"""Tables, figures and the page of a run."""

from hfseg.reporting import page
from hfseg.reporting.console import print_table
from hfseg.reporting.figures import (
    BLUE,
    INK,
    MAX_HEIGHT,
    MAX_HEIGHT_NAMES,
    STYLE,
    UNDEFINED,
    add_legend,
    class_handles,
    colour_overlay,
    ids_in,
    inline_svg,
    name_classes,
    plot_class_bars,
    plot_confusion,
    plot_learning_curves,
    save_figure,
)
from hfseg.reporting.report import (
    fixed_examples,
    legend,
    row_of_pictures,
    show_confusion,
    show_examples,
    shown_score,
    write_report,
)
from hfseg.reporting.run_figures import draw_figures, keep_examples
from hfseg.reporting.terminal import lossy_output

__all__ = [
    "BLUE",
    "INK",
    "MAX_HEIGHT",
    "MAX_HEIGHT_NAMES",
    "STYLE",
    "UNDEFINED",
    "add_legend",
    "class_handles",
    "colour_overlay",
    "draw_figures",
    "fixed_examples",
    "ids_in",
    "inline_svg",
    "keep_examples",
    "legend",
    "lossy_output",
    "name_classes",
    "page",
    "plot_class_bars",
    "plot_confusion",
    "plot_learning_curves",
    "print_table",
    "row_of_pictures",
    "save_figure",
    "show_confusion",
    "show_examples",
    "shown_score",
    "write_report",
]
