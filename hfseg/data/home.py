"""Where the files of a data set lie, and with that which files its rows may name."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from hfseg.errors import UserError, shown

# A file of a repository, or of a zip file in it, as `datasets` writes them into the rows of a stream
HUB_ADDRESS = re.compile(r"(?:zip://[^:]*::)?hf://datasets/(?P<repo>[^/@]+/[^/@]+)(?:@[^/]+)?/(?P<path>[^:]+)")


@dataclass(frozen=True)
class Home:
    """The places of one data set.

    Rows are written by strangers, and whatever opens a cell opens the path or the address in it: a row that names
    `/etc/passwd` would read it, one that names `http://127.0.0.1` would call it.

    Attributes:
        folders: real paths on this machine; relative paths begin in the first.
        repo: `owner/name`, whose files are meant by `hf://datasets/owner/name/...`.
    """

    folders: tuple[Path, ...]
    repo: str | None = None

    @classmethod
    def of_folder(cls, root: Path) -> "Home":
        """A data set in a folder."""
        return cls((Path(os.path.realpath(root)),))

    @classmethod
    def of_repo(cls, repo: str) -> "Home":
        """A data set of the Hub: its files in the Hub's cache, and what `datasets` has unpacked of archives."""
        downloaded = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="dataset")
        places = (downloaded, Path(datasets.config.EXTRACTED_DATASETS_PATH))
        return cls(tuple(Path(os.path.realpath(place)) for place in places), repo)

    def find(self, path: str, where: str) -> str:
        """The absolute path, or the address on the Hub, of a file that a row names.

        Raises:
            UserError: it lies elsewhere, links followed, or is no file; names `where`.
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
