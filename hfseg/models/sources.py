"""Where weights come from: a folder, or a repository of the Hub."""

from pathlib import Path

from hfseg.errors import UserError
from hfseg.hub import pull


def resolve(source: str) -> Path:
    """The folder itself, or a snapshot of the Hub repository.

    Raises:
        UserError: it is neither, or a HubTransferError: the Hub cannot give it.
    """
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    try:
        return pull(source)
    except UserError as error:
        message = f"model.init={source!r} is no folder here and cannot be had from the Hub: {error}"
        raise type(error)(message) from error
