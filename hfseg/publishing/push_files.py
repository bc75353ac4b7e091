"""What of a run's folder is pushed, in the form in which it may be."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from hfseg.errors import UserError
from hfseg.files import dump_yaml
from hfseg.hub import Files, model_files, public_files
from hfseg.publishing.card import build_card
from hfseg.publishing.card_checks import check_card
from hfseg.publishing.eval_results import EVAL_RESULTS
from hfseg.runs import CONFIG, COUNTS, DATA_SETS, REQUIRED, RunResults

MODEL = ("model/config.json", "model/preprocessor_config.json")
SHOW_DATA = ("report.html", "figures/*.png")  # may show images of the data, but for the figures below
PLOTS = ("curves.png", "confusion.png", "per_class.png")  # numbers only


def check_pushable(run_dir: Path) -> RunResults:
    """Reads a finished run that has all that a push sends.

    Raises:
        UserError: the run is not finished, a file of it is torn, or the card lacks a field.
    """
    if not run_dir.is_dir():
        raise UserError(f"There is no run in {run_dir}. Give the output folder of a finished training.")
    weights = list(run_dir.glob("model/model*.safetensors"))
    missing = [name for name in (*MODEL, "README.md", *REQUIRED) if not (run_dir / name).is_file()]
    missing += [] if weights else ["model/model.safetensors"]
    if missing:
        remedy = "Go on with --resume, or score it with --eval-only."
        if all(name.startswith("model/") for name in missing):
            remedy = "A run that only scores `model.init` has no weights of its own to publish."
        raise UserError(
            f"The run in {run_dir} is not finished, it lacks {', '.join(missing)}. {remedy} Nothing was sent."
        )
    path = run_dir
    try:
        for path in [run_dir / name for name in MODEL]:
            json.loads(path.read_text(encoding="utf-8"))
        for path in weights:
            with safe_open(path, "pt"):  # compares the header's sizes with the file's
                pass
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is torn ({error}). Restore it; nothing was sent.") from error
    run = RunResults.read_finished(run_dir)
    check_card(run_dir / "README.md")
    return run


def files_to_push(run: RunResults, repo: str, images: bool = False) -> Files:
    """The files of a run as they are sent, without anything private.

    Args:
        run: from `check_pushable`.
        repo: where they go. A card that is as the run wrote it then shows how to load the model from there.
        images: also what shows images of the data; where the data is drawn it is taken along anyway.

    Raises:
        UserError: a text cannot be read, or a token is in a file.
    """
    folder = run.folder
    shows_data = images or DATA_SETS[run.run_config.data.name].is_drawn
    card = (folder / "README.md").read_text(encoding="utf-8")
    if card == str(build_card(folder)):
        card = str(build_card(folder, repo, show_predictions=images or None))
    files: dict[str, str | Path] = {**model_files(folder / "model")}
    files |= {"README.md": card, CONFIG: dump_yaml(run.public_config)}
    results = [folder / name for name in (*REQUIRED, "history.jsonl", COUNTS, EVAL_RESULTS) if name != CONFIG]
    pictures = [path for pattern in SHOW_DATA for path in folder.glob(pattern) if shows_data or path.name in PLOTS]
    files |= {path.relative_to(folder).as_posix(): path for path in (*results, *pictures) if path.is_file()}
    return public_files(files, _private_words(run))


def _private_words(run: RunResults) -> dict[str, str]:
    """Paths of this machine, the longest first, and what stands for them."""
    root = run.config["data"].get("root")
    words = {str(Path.home()): "~", str(Path.cwd()): ".", str(run.folder.resolve().parent): "."}
    if root:
        words |= {str(root): "<root>", str(Path(root).resolve()): "<root>"}
    long = [word for word in words if Path(word).is_absolute() and Path(word) != Path(word).parent]
    return {word: words[word] for word in sorted(long, key=len, reverse=True)}
