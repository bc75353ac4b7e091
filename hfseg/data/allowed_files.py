"""Which files a data set may have opened: its own. Rows and READMEs are written by strangers.

Whatever opens a cell opens the path or the address in it: a row that names `/etc/passwd` would read it, one that names
`http://127.0.0.1` would call it.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import constants, errors, hf_hub_download
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from hfseg.data.archive import leads_outside
from hfseg.errors import UserError, shown
from hfseg.files import parse_yaml, read_text

# A file of a repository, or of a zip file in it, as `datasets` writes them into the rows of a stream
HUB_ADDRESS = re.compile(r"(?:zip://[^:]*::)?hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@[^/]+)?/(?P<path>[^:]+)")
README, SETTINGS = "README.md", ".huggingface.yaml"  # where `datasets` looks for `configs`
LOCATIONS = ("data_files", "data_dir")


@dataclass(frozen=True)
class AllowedFiles:
    """The files that the rows of one data set may name.

    Attributes:
        folders: real paths on this machine; relative paths begin in the first.
        repo: `owner/name`, whose files are meant by `hf://datasets/owner/name/...`.
    """

    folders: tuple[Path, ...]
    repo: str | None = None

    @classmethod
    def of_folder(cls, root: Path) -> "AllowedFiles":
        """Those of a data set in a folder."""
        return cls((Path(os.path.realpath(root)),))

    @classmethod
    def of_repo(cls, repo: str) -> "AllowedFiles":
        """Those of a data set of the Hub, in the Hub's cache, and what `datasets` has unpacked of archives."""
        downloaded = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
        places = (downloaded, Path(datasets.config.EXTRACTED_DATASETS_PATH))
        return cls(tuple(Path(os.path.realpath(place)) for place in places), repo)

    def find(self, path: str, where: str) -> str:
        """The absolute path, or the address on the Hub, of a file that a row names.

        Raises UserError where it lies elsewhere, links followed, or is no file.
        """
        if "://" in path or "\0" in path:
            found = HUB_ADDRESS.fullmatch(path)
            if found and found["repo"] == self.repo and ".." not in found["path"].split("/"):
                return path
        else:
            real = Path(os.path.realpath(self.folders[0] / path))
            if any(real.is_relative_to(folder) for folder in self.folders):
                if not real.is_file():
                    raise UserError(f"{where} names the file {shown(path)}, which is not there. Restore it.")
                return str(real)
        raise UserError(
            f"{where} names {shown(path)}, which is not a file of the data set. Nothing else is opened for it: put "
            "the file into the data set's folder, or its bytes into the row."
        )


def check_declared_files(place: Path | str, revision: str | None) -> None:
    """Raises UserError where a README declares files outside of the data set, which `datasets` would open.

    `place` is a folder, or a repository on the Hub; what cannot be had there is left to `datasets`, which needs it.
    """
    for name in (README, SETTINGS):
        if isinstance(place, Path):
            if (place / name).exists():
                _check_declared(place / name, str(place / name))
            continue
        try:
            path = hf_hub_download(place, name, repo_type="dataset", revision=revision)
        except (OSError, ValueError, errors.HfHubHTTPError):
            continue
        _check_declared(Path(path), f"{name} of {place}")


def _check_declared(path: Path, where: str) -> None:
    text = read_text(path)
    if path.suffix == ".md":
        block = REGEX_YAML_BLOCK.search(text)
        text = block[2] if block else ""
    tree = parse_yaml(text, where)
    for named in _declared(tree.get("configs") if isinstance(tree, dict) else None):
        if "://" in named or "::" in named or leads_outside(named):
            raise UserError(
                f"{where} names the data files {shown(named)}, which are not files of the data set. Nothing else is "
                "opened for it: put them into the data set's folder, and name them by their place in it."
            )


def _declared(tree: Any, is_location: bool = False) -> Iterator[str]:
    """Every text below `data_files` and `data_dir`, however they are nested."""
    if isinstance(tree, str):
        yield from [tree] if is_location else []
    elif isinstance(tree, list):
        for value in tree:
            yield from _declared(value, is_location)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _declared(value, is_location or key in LOCATIONS)
