"""The data files that a data set's own README declares, which `datasets` would open wherever they are."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import errors, hf_hub_download
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hfseg.errors import UserError, shown
from hfseg.files import parse_yaml, read_text

README, SETTINGS = "README.md", ".huggingface.yaml"  # where `datasets` looks for `configs`
LOCATIONS = ("data_files", "data_dir")


def check_folder(root: Path) -> None:
    """Raises UserError where a folder's README declares files that are not in the folder."""
    for path in (root / README, root / SETTINGS):
        if path.exists():
            check_declared(path, str(path))


def check_repo(repo: str, revision: str | None) -> None:
    """The same for a data set of the Hub; what cannot be had there is left to `datasets`, which needs it too."""
    for name in (README, SETTINGS):
        try:
            path = hf_hub_download(repo, name, repo_type="dataset", revision=revision)
        except (OSError, ValueError, errors.HfHubHTTPError):
            continue
        check_declared(Path(path), f"{name} of {repo}")


def check_declared(path: Path, where: str) -> None:
    """Raises UserError where a README, or a YAML file, declares files outside of the data set; `where` names it."""
    text = read_text(path)
    if path.suffix == ".md":
        block = REGEX_YAML_BLOCK.search(text)
        text = block[2] if block else ""
    tree = parse_yaml(text, where)
    for named in declared(tree.get("configs") if isinstance(tree, dict) else None):
        plain = PurePosixPath(named.replace("\\", "/"))
        if (
            "://" in named
            or "::" in named
            or plain.is_absolute()
            or PureWindowsPath(named).anchor
            or ".." in plain.parts
        ):
            raise UserError(
                f"{where} names the data files {shown(named)}, which are not files of the data set. Nothing else is "
                "opened for it: put them into the data set's folder, and name them by their place in it."
            )


def declared(tree: Any, is_location: bool = False) -> Iterator[str]:
    """Every text below `data_files` and `data_dir`, however they are nested."""
    if isinstance(tree, str):
        yield from [tree] if is_location else []
    elif isinstance(tree, list):
        for value in tree:
            yield from declared(value, is_location)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from declared(value, is_location or key in LOCATIONS)
