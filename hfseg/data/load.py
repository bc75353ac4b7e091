"""`load_dataset`: from a DataConfig to splits and classes."""

from collections.abc import Callable
from pathlib import Path

import datasets
from filelock import FileLock

from hfseg.config import DataConfig, SyntheticConfig
from hfseg.data.cityscapes import cityscapes_source
from hfseg.data.drawn import (
    SYNTHETIC_CITYSCAPES_VERSION,
    SYNTHETIC_VERSION,
    write_synthetic_cityscapes,
    write_synthetic_pet,
)
from hfseg.data.folder import folder_source
from hfseg.data.hub import Splits, load_hub
from hfseg.data.images import allow_pixels
from hfseg.data.oxford_pet import oxford_pet_source
from hfseg.data.source import Source
from hfseg.errors import UserError, WriteError
from hfseg.files import new_file_mode, remove_leftovers, writing
from hfseg.labels import LabelSet


def load_dataset(config: DataConfig) -> tuple[Splits, LabelSet]:
    """Reads, checks and caches a data set.

    Args:
        config: which one and from where.

    Returns:
        Splits `train`, `validation`, `test` with columns `image` (RGB), `label` (one channel, 0..K-1 or the ignore
        index) and `name`, read lazily under `data.streaming`; a split `predict` comes without labels. And the classes.

    Raises:
        UserError: the data is not there or something in it is wrong; names the file and the remedy.

    Example:
        >>> from hfseg import DataConfig, load_dataset
        >>> config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 16, "num_test": 4, "size": 64})
        >>> data, labels = load_dataset(config)
        >>> sorted(data), labels.names
        (['test', 'train', 'validation'], ('pet', 'background', 'boundary'))
    """
    cache_dir = cache_folder()
    allow_pixels(config.max_pixels)
    if config.name == "hub":
        return load_hub(config, cache_dir)
    source = find_source(config, cache_dir)
    return source.load(cache_dir), source.labels


def cache_folder() -> Path:
    """The folder that `datasets` and hfseg prepare data sets in, made if need be; UserError where it cannot be."""
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


def find_source(config: DataConfig, cache_dir: Path) -> Source:
    """Where the files of a data set are; draws, downloads or unpacks them if need be."""
    if config.name == "oxford_pet":
        return oxford_pet_source(config.root, config.boundary, cache_dir)
    if config.name == "cityscapes":
        return cityscapes_source(config.root, cache_dir)
    if config.name == "synthetic_pet":
        root = draw_once(config, cache_dir, SYNTHETIC_VERSION, draw_pets)
        return oxford_pet_source(root, config.boundary, cache_dir)
    if config.name == "synthetic_cityscapes":
        root = draw_once(config, cache_dir, str(SYNTHETIC_CITYSCAPES_VERSION), draw_streets)
        return cityscapes_source(root, cache_dir)
    if config.name == "folder":
        return folder_source(config)
    raise NotImplementedError(f"find_source knows no files of data.name={config.name}")


def draw_once(
    config: DataConfig, cache_dir: Path, version: str, draw: Callable[[Path, SyntheticConfig], None]
) -> Path:
    """Draws a synthetic data set below `data.root`, or the cache, unless it is there; returns its folder."""
    drawing = config.synthetic
    stem = f"v{version}-{drawing.num_trainval}-{drawing.num_test}-{drawing.size}-{drawing.seed}"
    root = (config.root or cache_dir) / config.name / stem
    with writing(root):
        root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.parent / f"{stem}.lock"):
        if not root.exists():
            remove_leftovers(root.parent, f".{stem}-*.partial")  # this process holds the lock
            draw(root, drawing)
    return root


def draw_pets(root: Path, drawing: SyntheticConfig) -> None:
    """The pets that `data.synthetic` asks for."""
    write_synthetic_pet(
        root, num_trainval=drawing.num_trainval, num_test=drawing.num_test, size=drawing.size, seed=drawing.seed
    )


def draw_streets(root: Path, drawing: SyntheticConfig) -> None:
    """The streets that `data.synthetic` asks for: its test images are the official val, and none are unlabelled."""
    write_synthetic_cityscapes(
        root,
        num_train=drawing.num_trainval,
        num_val=drawing.num_test,
        num_test=0,
        size=drawing.size,
        seed=drawing.seed,
    )
