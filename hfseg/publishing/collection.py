"""The cards that a repository shows of its runs: one folder for each, and a table of all."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from hfseg.errors import UserError
from hfseg.files import dump_yaml, write_text
from hfseg.metrics import with_interval
from hfseg.publishing.card import write_card
from hfseg.publishing.card_checks import check_card
from hfseg.reporting import render
from hfseg.runs import CONFIG, DATA_SETS, REQUIRED, RunResults


def collect_cards(run_dirs: Iterable[Path], folder: Path) -> None:
    """Copies the files behind runs' cards, and writes the cards and the table of all of them.

    Pictures of predictions are taken along only where the data is drawn; others' images stay where they are.

    Args:
        run_dirs: finished runs.
        folder: where the cards are kept, one folder for each run's name.

    Raises:
        UserError: a folder is not that of a finished run.
    """
    runs = [RunResults.read_finished(run_dir) for run_dir in run_dirs]  # all of them first: nothing is half copied
    for run in runs:
        target = folder / run.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (*REQUIRED, "history.jsonl"):
            if name != CONFIG and (run.folder / name).is_file():
                shutil.copyfile(run.folder / name, target / name)
        write_text(target / CONFIG, dump_yaml(run.public_config))
        is_drawn = DATA_SETS[run.run_config.data.name].is_drawn
        for name in ("curves.png", *["predictions.png"] * is_drawn):
            if figure := run.figure(name):
                shutil.copyfile(run.folder / figure, target / name)
    renew_cards(folder)


def renew_cards(folder: Path) -> None:
    """Writes all cards in a folder anew from the files beside them, and the table.

    Raises:
        UserError: there is none, or one lacks a file.
    """
    homes = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if not homes:
        raise UserError(f"{folder} holds no cards: collect them from finished runs.")
    for home in homes:
        write_card(home)
        check_card(home / "README.md")
    runs = [RunResults.read_finished(home) for home in homes]
    values = {"runs": runs, "data_sets": DATA_SETS, "with_interval": with_interval}
    write_text(folder / "README.md", render("publishing/collection.md.jinja", values))
