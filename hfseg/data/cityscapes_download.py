"""Fetching Cityscapes with the downloader of its makers, which needs an account."""

import os
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from hfseg.errors import UserError

PACKAGES = {"leftImg8bit_trainvaltest.zip": "11 GB", "gtFine_trainvaltest.zip": "241 MB"}
WHERE_FROM = (
    f"Get {' and '.join(f'{name} ({size})' for name, size in PACKAGES.items())} from "
    "https://www.cityscapes-dataset.com/downloads/ (free for research, account needed), put both into one folder, "
    "packed or unpacked, and set data.root to it"
)
LOG_IN = "run `csDownload -l` once, let it store your login, and run this again"


def download(folder: Path) -> list[Path]:
    """The two archives in `folder`; those that are not there yet come from the official server.

    An archive gets its name once its checksum is right; a broken download goes on where it stopped.

    Raises:
        UserError: no downloader, no stored login, a refused login, or a failed download; says what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "download.lock"):
        for name in PACKAGES:
            if not (folder / name).is_file():
                _fetch(name, folder)
    return [folder / name for name in PACKAGES]


def _fetch(name: str, folder: Path) -> None:
    if find_spec("cityscapesscripts") is None:
        raise UserError(f"{WHERE_FROM}. Or `pip install 'hfseg[cityscapes]'`, {LOG_IN}.")
    import appdirs
    from cityscapesscripts.download import downloader  # an optional dependency

    credentials = Path(appdirs.user_data_dir("cityscapesscripts", "cityscapes")) / "credentials.json"
    if not credentials.is_file():  # the downloader would ask for them, and a run on a cluster would wait for ever
        raise UserError(f"There is no Cityscapes login in {credentials}. {WHERE_FROM}. Or {LOG_IN}.")
    partial = folder / "partial" / name
    partial.parent.mkdir(exist_ok=True)
    begun = partial.exists()
    if begun:  # one byte back: a server has nothing to answer to a request for what comes after the end
        os.truncate(partial, max(0, partial.stat().st_size - 1))
    try:
        downloader.download_packages(
            session=downloader.login(), package_names=[name], destination_path=str(partial.parent), resume=begun
        )
    except OSError as error:  # `requests` raises these too: what has arrived stays, and is added to
        raise UserError(f"Could not download {name}: {error}. Run this again to go on. {WHERE_FROM}.") from error
    except Exception as error:  # a plain Exception is what the downloader raises for a login or checksum that is wrong
        partial.unlink(missing_ok=True)
        raise UserError(
            f"Could not download {name}: {error!r}. If it is the login, {LOG_IN}. {WHERE_FROM}."
        ) from error
    os.replace(partial, folder / name)
