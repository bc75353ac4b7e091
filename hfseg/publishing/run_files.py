"""What of a run's folder may be published, in the form in which it may."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hfseg.errors import UserError
from hfseg.files import dump_yaml, parse_yaml, read_text
from hfseg.hub import Files, check_no_token, model_files, public_files, public_text
from hfseg.publishing.card import build_card
from hfseg.publishing.card_checks import check_card
from hfseg.runs import public_config

RESULTS = ("metrics.json", "per_class.json", "provenance.json")
EXTRAS = ("history.jsonl", "counts.npz")
SHOW_DATA = ("report.html", "figures/*.png")  # may show images of the data, but for the figures below
PLOTS = ("curves.png", "confusion.png", "per_class.png")  # numbers only


def published_files(run_dir: Path, images: bool = False, repo: str | None = None) -> Files:
    """The files of a finished run, without anything private.

    Args:
        run_dir: the folder of the run.
        images: also what shows images of the data; where the data is drawn it is taken along anyway.
        repo: where they go. A card that is as the run wrote it then shows how to load the model from there.

    Raises:
        UserError: the run is not finished, a file of it is torn, the card lacks a field, or a token is in a file.
    """
    config = check_finished(run_dir)
    check_card(run_dir / "README.md")
    names = [*RESULTS, "README.md", *(name for name in EXTRAS if (run_dir / name).is_file())]
    shows_data = images or config["data"]["name"].startswith("synthetic_")
    pictures = [path for pattern in SHOW_DATA for path in run_dir.glob(pattern) if path.is_file()]
    names += [path.relative_to(run_dir).as_posix() for path in pictures if shows_data or path.name in PLOTS]
    found = model_files(run_dir / "model") | {name: run_dir / name for name in names}
    private = private_words(run_dir, config)
    files = public_files(found, private)
    card = (run_dir / "README.md").read_text(encoding="utf-8")
    if repo is not None and card == str(build_card(run_dir)):
        card = str(build_card(run_dir, repo, show_predictions=images or None))
    config_text = dump_yaml(public_config(config))
    written = {"README.md": card, "run_config.yaml": config_text}
    files |= {name: public_text(text, private).encode() for name, text in written.items()}
    check_no_token(files)
    return files


def check_finished(run_dir: Path) -> dict[str, Any]:
    """The tree of a finished run's config; raises UserError where the run is not finished or a file is torn."""
    if not run_dir.is_dir():
        raise UserError(f"There is no run in {run_dir}. Give the output folder of a finished training.")
    needed = ("model/config.json", "model/preprocessor_config.json", "README.md", "run_config.yaml", *RESULTS)
    missing = [name for name in needed if not (run_dir / name).is_file()]
    missing += [] if list(run_dir.glob("model/model*.safetensors")) else ["model/model.safetensors"]
    if missing:
        remedy = "Go on with --resume, or score it with --eval-only."
        if all(name.startswith("model/") for name in missing):
            remedy = "A run that only scores `model.init` has no weights of its own to publish."
        raise UserError(
            f"The run in {run_dir} is not finished, it lacks {', '.join(missing)}. {remedy} Nothing was sent."
        )
    path = run_dir
    try:
        for path in [run_dir / name for name in needed if name.endswith(".json")]:
            json.loads(path.read_text(encoding="utf-8"))
        for path in run_dir.glob("model/model*.safetensors"):
            with safe_open(path, "pt"):  # compares the header's sizes with the file's
                pass
        path = run_dir / "run_config.yaml"
        config = parse_yaml(read_text(path), str(path))
        config["data"]["name"].startswith  # noqa: B018
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise UserError(f"{path} is torn ({error}). Restore it; nothing was sent.") from error
    return dict(config)


def private_words(run_dir: Path, config: dict[str, Any]) -> dict[str, str]:
    """Paths of this machine, the longest first, and what stands for them."""
    root = config["data"].get("root")
    words = {str(Path.home()): "~", str(Path.cwd()): ".", str(run_dir.resolve().parent): "."}
    if root:
        words |= {str(root): "<root>", str(Path(root).resolve()): "<root>"}
    long = [word for word in words if Path(word).is_absolute() and Path(word) != Path(word).parent]
    return {word: words[word] for word in sorted(long, key=len, reverse=True)}
