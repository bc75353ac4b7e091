"""Where weights come from: a folder, or a repository of the Hub."""

import os
from pathlib import Path

from hfseg.errors import UserError
from hfseg.hub import pull


def resolve(source: str, key: str = "model.init") -> Path:
    """The folder itself, or a snapshot of the Hub repository.

    Args:
        source: a folder or a Hub id.
        key: what the user calls it, for messages.

    Raises:
        UserError: it is neither, or a HubTransferError: the Hub cannot give it.
    """
    folder = os.path.expanduser(source)
    if os.path.isdir(folder):  # unlike pathlib's, false for what no folder can be called
        return Path(folder)
    try:
        return pull(source)
    except UserError as error:
        message = f"{key}={source!r} is no folder here and cannot be had from the Hub: {error}"
        raise type(error)(message) from error
