"""Where weights come from: a folder of a model or of a run, or a repository of the Hub."""

import os
from pathlib import Path

from hfseg.errors import UserError, shown
from hfseg.hub import pull


def resolve(source: str, key: str = "model.init") -> Path:
    """The folder itself, the `model` in it where it is a run's, or a snapshot of the Hub repository.

    Args:
        source: a folder or a Hub id.
        key: what the user calls it, for messages.

    Raises:
        UserError: it is neither, or a run's without a model, or a HubTransferError: the Hub cannot give it.
    """
    path = os.path.expanduser(source)
    if os.path.isdir(path):  # unlike pathlib's, false for what no folder can be called
        folder = Path(path)
        if (folder / "config.json").is_file():
            return folder
        if (folder / "model" / "config.json").is_file():
            return folder / "model"
        if (folder / "run_config.yaml").is_file():
            raise UserError(
                f"{key}={shown(source)} is the folder of a run that has left no model: there is no model/config.json "
                "in it. Let the run finish, with its config and --resume."
            )
        return folder
    if os.path.isfile(path):
        raise UserError(f"{key}={shown(source)} is a file. Give the folder that has the model's config.json, too.")
    try:
        return pull(source)
    except UserError as error:
        message = f"{key}={shown(source)} is no folder here and cannot be had from the Hub: {error}"
        raise type(error)(message) from error
