"""Tables, figures and the page of a run."""

from hfseg.reporting.charts import plot_class_bars, plot_learning_curves, plot_matrix
from hfseg.reporting.console import print_data, print_end, print_table
from hfseg.reporting.examples import EXAMPLE_IMAGES, draw_figures, keep_examples
from hfseg.reporting.page import escape_markdown, inline_svg, number, render
from hfseg.reporting.pictures import add_legend, class_handles, colour_overlay, ids_in
from hfseg.reporting.progress import showing_progress
from hfseg.reporting.report import class_colours, confusion_matrices, example_groups, fixed_examples, write_report
from hfseg.reporting.run_plots import plot_classes, plot_confusion, plot_curves
from hfseg.reporting.show import show
from hfseg.reporting.style import (
    BLUE,
    INK,
    MAX_HEIGHT,
    MAX_HEIGHT_NAMES,
    STYLE,
    UNDEFINED,
    name_classes,
    save_figure,
)

__all__ = [
    "BLUE",
    "EXAMPLE_IMAGES",
    "INK",
    "MAX_HEIGHT",
    "MAX_HEIGHT_NAMES",
    "STYLE",
    "UNDEFINED",
    "add_legend",
    "class_colours",
    "class_handles",
    "colour_overlay",
    "confusion_matrices",
    "draw_figures",
    "escape_markdown",
    "example_groups",
    "fixed_examples",
    "ids_in",
    "inline_svg",
    "keep_examples",
    "name_classes",
    "number",
    "plot_class_bars",
    "plot_classes",
    "plot_confusion",
    "plot_curves",
    "plot_learning_curves",
    "plot_matrix",
    "print_data",
    "print_end",
    "print_table",
    "render",
    "save_figure",
    "show",
    "showing_progress",
    "write_report",
]
