"""What of a run's folder may be published, in the form in which it may."""

import json
import re
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open

from hfseg.card.checks import check_card
from hfseg.card.facts import public_config
from hfseg.errors import UserError
from hfseg.model_card import build_card
from hfseg.text_files import read_text
from hfseg.yaml_text import dump_yaml, parse_yaml

Files: TypeAlias = dict[str, bytes | Path]  # by their path in the repository; text as the bytes to send

RESULTS = ("metrics.json", "per_class.json", "provenance.json")
EXTRAS = ("history.jsonl", "counts.npz")
SHOW_DATA = ("report.html", "figures/*.png")  # may show images of the data, but for the figures below
PLOTS = ("curves.png", "confusion.png", "per_class.png")  # numbers only
TEXT = (".json", ".jsonl", ".yaml", ".md", ".html", ".py")
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")


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


def public_files(found: dict[str, Path], private: dict[str, str]) -> Files:
    """Files as they may be sent: text without private words, everything else as it is.

    Raises:
        UserError: a text cannot be read, or holds a token.
    """
    files: Files = {}
    for name, path in found.items():
        try:
            text = path.read_text(encoding="utf-8") if path.suffix in TEXT else None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is torn ({error}). Restore it; nothing was sent.") from error
        files[name] = path if text is None else public_text(text, private).encode()
    check_no_token(files)
    return files


def model_files(folder: Path) -> dict[str, Path]:
    """Weights, configs and model code of a folder that `save_pretrained` wrote, or of a checkpoint."""
    patterns = ("*config.json", "model*.safetensors", "model.safetensors.index.json", "*.py")
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}


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


def public_text(text: str, private: dict[str, str]) -> str:
    """Text with other words for private paths, wherever they stand as paths."""
    for word, public in private.items():
        text = re.sub(rf"(?<![\w.>-]){re.escape(word)}(?![\w-])", public, text)
    return text


def check_no_token(files: Files) -> None:
    """Raises UserError where a token of the Hub is in a file: in a note, say, or a command."""
    own = get_token()
    for name, content in files.items():
        if isinstance(content, bytes) and (TOKEN.search(content) or (own and own.encode() in content)):
            raise UserError(f"{name} holds a token of the Hub. Take it out of the run's files; nothing was sent.")
