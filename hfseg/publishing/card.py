"""The model card, written from a run's files: no number in it is typed by hand."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import ModelCard

from hfseg.errors import UserError
from hfseg.files import dump_yaml, write_text
from hfseg.metrics import with_interval
from hfseg.publishing import card_text as text
from hfseg.publishing.card_checks import check_card
from hfseg.publishing.card_metadata import metadata
from hfseg.publishing.card_results import escape, results, table
from hfseg.publishing.card_usage import usage
from hfseg.runs import DATA_SETS, FILES, Facts, public_config, read_facts

__all__ = ["DATA_SETS", "build_card", "check_card", "collect_cards", "public_config", "renew_cards", "write_card"]


def build_card(run_dir: Path, repo: str | None = None, show_predictions: bool | None = None) -> ModelCard:
    """The card of a run, as `README.md` in the run's folder, in its copy, or in a repository of the Hub.

    Args:
        run_dir: a finished run, or a folder with copies of its files.
        repo: the Hub repository that the card is for; by default the config's `hub.repo`.
        show_predictions: whether the card has the picture of predictions, which shows images of the data. By default
            only where the data is drawn by hfseg. A picture that does not exist is never shown.

    Raises:
        UserError: a file of the run is missing or torn; says which.
    """
    facts = read_facts(run_dir, repo)
    show = facts.data_set.is_drawn if show_predictions is None else show_predictions
    sections = [
        f"# {facts.config.name}",
        text.summary(facts),
        text.predictions(facts) if show else "",
        usage(facts),
        results(facts),
        text.training(facts),
        text.reproduce(facts),
        text.limits(facts),
        text.cite(facts),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{metadata(facts).to_yaml()}\n---\n\n{body}\n")


def write_card(run_dir: Path, repo: str | None = None, show_predictions: bool | None = None) -> ModelCard:
    """Writes `README.md` into a run's folder; see `build_card`."""
    card = build_card(run_dir, repo, show_predictions)
    write_text(run_dir / "README.md", str(card))
    return card


def collect_cards(run_dirs: Iterable[Path], folder: Path) -> None:
    """Copies the files behind runs' cards, and writes the cards and the table of all of them.

    Pictures of predictions are taken along only where the data is drawn; others' images stay where they are.

    Args:
        run_dirs: finished runs.
        folder: where the cards are kept, one folder for each run's name.

    Raises:
        UserError: a folder is not that of a finished run.
    """
    for facts in [read_facts(run_dir) for run_dir in run_dirs]:  # all of them first: nothing is half copied
        target = folder / facts.config.name
        target.mkdir(parents=True, exist_ok=True)
        for name in (*FILES, "history.jsonl"):
            if name != "run_config.yaml" and (facts.folder / name).is_file():
                shutil.copyfile(facts.folder / name, target / name)
        write_text(target / "run_config.yaml", dump_yaml(facts.shown))
        for name in ("curves.png", *["predictions.png"] * facts.data_set.is_drawn):
            picture = facts.picture(name)
            if picture is not None:
                shutil.copyfile(facts.folder / picture, target / name)
    renew_cards(folder)


def renew_cards(folder: Path) -> None:
    """Writes all cards in a folder anew from the files beside them, and the table.

    Raises:
        UserError: there is none, or one lacks a file.
    """
    homes = sorted(path.parent for path in folder.glob("*/run_config.yaml"))
    if not homes:
        raise UserError(f"{folder} holds no cards: collect them from finished runs.")
    for home in homes:
        write_card(home)
        check_card(home / "README.md")
    write_text(folder / "README.md", overview([read_facts(home) for home in homes]))


def overview(runs: list[Facts]) -> str:
    """The table of all runs."""
    rows = []
    for facts in runs:
        link = f"[{facts.config.name}]({facts.folder.name}/README.md)"
        data = escape(facts.config.data.note or facts.data_set.title)
        score = with_interval(facts.metrics, "test_mean_iou").replace(" ", "&nbsp;")
        seconds = facts.origin.train_seconds
        minutes = "-" if seconds is None else f"{seconds / 60:.1f}"
        rows.append([link, data, score, minutes, facts.origin.hardware])
    lines = table(["model", "data", "mean IoU, test", "minutes", "hardware"], rows, "llrrl")
    return f"""# Results

One card for each trained configuration, with the files behind its numbers. Brackets hold the 95 % bootstrap interval
over the test images. Each card says how it was measured.

{lines}

`python scripts/collect_cards.py runs/NAME ...` adds runs, `--study runs/STUDY` the runs and the answer of a study;
`--renew` writes every page anew from the files beside it.
"""
