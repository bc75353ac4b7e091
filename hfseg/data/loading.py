"""`load_dataset`: from a DataConfig to splits and classes."""

from pathlib import Path

import datasets
from filelock import FileLock

from hfseg.config import DataConfig
from hfseg.data.oxford_pet import oxford_pet_source
from hfseg.data.source import Source
from hfseg.data.synthetic import SYNTHETIC_VERSION, write_synthetic_pet
from hfseg.errors import UserError
from hfseg.labels import LabelSet


def load_dataset(config: DataConfig) -> tuple[datasets.DatasetDict, LabelSet]:
    """Reads, checks and caches a data set.

    Args:
        config: which one and from where.

    Returns:
        Splits `train`, `validation`, `test` with columns `image` (RGB), `label` (one channel, 0..K-1 or the ignore
        index) and `name`; and the classes.

    Raises:
        UserError: the data is not there or something in it is wrong; names the file and the remedy.

    Example:
        >>> from hfseg import DataConfig, load_dataset
        >>> config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 16, "num_test": 4, "size": 64})
        >>> data, labels = load_dataset(config)
        >>> sorted(data), labels.names
        (['test', 'train', 'validation'], ('pet', 'background', 'boundary'))
    """
    cache_dir = Path(datasets.config.HF_DATASETS_CACHE)
    source = find_source(config, cache_dir)
    return source.load(cache_dir), source.labels


def find_source(config: DataConfig, cache_dir: Path) -> Source:
    """Where the files of a data set are; draws, downloads or unpacks them if need be."""
    if config.name == "oxford_pet":
        return oxford_pet_source(config.root, config.boundary, cache_dir)
    if config.name == "synthetic_pet":
        return oxford_pet_source(draw_synthetic_pet(config, cache_dir), config.boundary, cache_dir)
    raise UserError(f"data.name={config.name!r} is not available yet.")


def draw_synthetic_pet(config: DataConfig, cache_dir: Path) -> Path:
    """Draws the synthetic pets below `data.root`, or the cache, unless they are there; returns their folder."""
    drawing = config.synthetic
    stem = f"v{SYNTHETIC_VERSION}-{drawing.num_trainval}-{drawing.num_test}-{drawing.size}-{drawing.seed}"
    root = (config.root or cache_dir / "synthetic_pet") / stem
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.root={root.parent} cannot be made a folder to draw into: {error}") from error
    with FileLock(root.parent / f"{stem}.lock"):
        if not root.exists():
            write_synthetic_pet(
                root,
                num_trainval=drawing.num_trainval,
                num_test=drawing.num_test,
                size=drawing.size,
                seed=drawing.seed,
            )
    return root
