"""The folder that data sets are prepared in, by `datasets` and by us."""

from pathlib import Path

import datasets

from hfseg.errors import UserError, WriteError
from hfseg.files import new_file_mode, writing


def cache_folder() -> Path:
    """The cache of `datasets`, which can be written to; made if need be.

    Raises:
        UserError: it cannot; names the variables that choose another.
    """
    folder = Path(datasets.config.HF_DATASETS_CACHE)
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        new_file_mode(folder)  # by making a file
    except WriteError as error:
        raise UserError(
            f"The cache of data sets: {error} Set HF_DATASETS_CACHE, or HF_HOME, to a folder that can be written to."
        ) from error
    return folder
