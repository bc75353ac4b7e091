"""Where weights come from: a folder, or a repository of the Hub."""

from pathlib import Path

from huggingface_hub import snapshot_download

from hfseg.errors import UserError


def resolve(source: str, key: str = "model.init") -> Path:
    """The folder itself, or a snapshot of the Hub repository.

    Args:
        source: a folder or a Hub id.
        key: what the user calls it, for messages.

    Raises:
        UserError: it is neither.
    """
    if Path(source).expanduser().is_dir():
        return Path(source).expanduser()
    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors"]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}={source!r} is no folder here and cannot be had from the Hub: {reason}") from error
