"""What a run's end makes of its scores: pictures, card and report; and what of it a kill has left unmade."""

from pathlib import Path

from hfseg.files import writing
from hfseg.publishing.card import write_card
from hfseg.publishing.eval_results import EVAL_RESULTS, write_eval_results
from hfseg.reporting import EXAMPLE_IMAGES, draw_figures, write_report
from hfseg.runs import COUNTS

SCORES = ("metrics.json", "per_class.json", COUNTS)
EXAMPLES = ("examples.npz", "figures/predictions.png")  # take the model and the data, everything else the files
PAGES = ("figures/curves.png", "figures/per_class.png", "README.md", "report.html")
NOT_EVERYWHERE = ("figures/confusion.png", *(f"figures/{name}" for name in EXAMPLE_IMAGES), EVAL_RESULTS)


def missing_pages(run_dir: Path) -> list[str]:
    """What a run that is scored lacks; nothing where there are no scores yet."""
    if not (run_dir / "metrics.json").exists():
        return []
    wanted = (*EXAMPLES, *PAGES) if (run_dir / "model").is_dir() else PAGES
    return [name for name in wanted if not (run_dir / name).exists()]


def write_pages(run_dir: Path) -> None:
    """Writes pictures, card, evaluation results and report from the files in a run's folder.

    Raises:
        WriteError: the disk refuses it, or the folder has been removed.
    """
    for write in (draw_figures, write_card, write_eval_results, write_report):
        with writing(run_dir):
            (run_dir / "metrics.json").stat()  # all of them read the folder, and leave out what is not there
        write(run_dir)


def discard_results(run_dir: Path) -> None:
    """Removes scores and pages, the scores first: without them a run counts as unfinished.

    Raises:
        WriteError: the disk refuses it.
    """
    with writing(run_dir):
        for name in (*SCORES, *EXAMPLES, *PAGES, *NOT_EVERYWHERE):
            (run_dir / name).unlink(missing_ok=True)
