"""Where the samples of a data set are (`Source`), and the one builder that makes a `datasets.DatasetDict` of them.

Each data set has a file with a function that returns its Source. Training goes through the builder, which stops at the
first fault; the label doctor goes through the same Source and lists them all.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from hfseg.console import track
from hfseg.data.images import check_depth, encode_label, open_image
from hfseg.errors import UserError
from hfseg.files import writing
from hfseg.labels import LabelSet


@dataclass(frozen=True)
class Pair:
    """One sample: its name, unique in the data set, its image and its mask (None in a split to predict only)."""

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Source:
    """A data set before anything in it is read.

    Attributes:
        name: as in `data.name`.
        root: the folder that all paths lie in.
        labels: the classes.
        splits: `train`, `validation`, `test` with masks; a split `predict` may come without.
        read_ids: mask file -> (H, W) uint8 or uint16 of class ids or the ignore index; raises UserError on anything
            that is not in the data set's coding. A frozen dataclass, whose fields are part of the fingerprint.
        listings: files that say what belongs to the data set, such as lists and class files.
        unpaired: masks without an image, which are left out, and images without a mask, which loading refuses.
        other_files: files among them that are no images.
    """

    name: str
    root: Path
    labels: LabelSet
    splits: dict[str, list[Pair]]
    read_ids: Callable[[Path], NDArray[np.integer]]
    listings: Sequence[Path] = ()
    unpaired: Sequence[Path] = field(default=(), repr=False)
    other_files: Sequence[Path] = field(default=(), repr=False)

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, replaced or edited, and when masks are read in another way."""
        files = [*self.listings]
        files += [path for pairs in self.splits.values() for pair in pairs for path in (pair.image, pair.mask) if path]
        names = {split: [pair.name for pair in pairs] for split, pairs in self.splits.items()}
        return digest((self.name, self.labels, names, self.read_ids), files)

    def load(self, cache_dir: Path) -> datasets.DatasetDict:
        """All files, read once into the Arrow cache: columns `image`, `label`, `name`; UserError at a fault."""
        check_splits(self)
        builder = SegmentationFiles(cache_dir=str(cache_dir), dataset_name=self.name, fingerprint=self.fingerprint())
        builder.source = self
        with writing(Path(builder.cache_dir)):
            try:
                with without_bars():
                    builder.download_and_prepare()
            except datasets.exceptions.DatasetGenerationError as error:
                if isinstance(error.__cause__, UserError | OSError):  # the data's, or the disk's
                    raise error.__cause__ from None
                raise
        return builder.as_dataset()


@contextmanager
def without_bars() -> Iterator[None]:
    """Around what `datasets` prepares: without its bar "Generating train split", of examples and for each split."""
    were_hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_hidden:
            datasets.enable_progress_bars()


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for a file that is not there."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (-1, -1)


def digest(state: object, files: Sequence[Path]) -> str:
    """A short name for a state and that of files, for caches: `datasets` itself keys local files by path only."""
    return hashlib.sha256(repr((state, [(str(f), *file_state(f)) for f in files])).encode()).hexdigest()[:16]


def check_splits(source: Source) -> None:
    """Raises UserError for an empty split, images without a mask, and a name that occurs twice, whatever the split."""
    for split, pairs in source.splits.items():
        if not pairs:
            raise UserError(f"{source.root}: the {split} split is empty.")
    labelled = [pair for split, pairs in source.splits.items() if split != "predict" for pair in pairs]
    bare = [pair.image for pair in labelled if pair.mask is None]
    if bare:
        raise UserError(
            f"{source.root}: {len(bare)} of {len(labelled)} images have no mask of the same name, such as {bare[0]}. "
            "Add their masks, or move these images out of the data set."
        )
    counts = Counter(pair.name for pairs in source.splits.values() for pair in pairs)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise UserError(
            f"{source.root}: {len(repeated)} names occur more than once, such as {repeated[0]}. A sample belongs to "
            "one split; a score on training images means nothing."
        )


@dataclass
class SegmentationFilesConfig(datasets.BuilderConfig):
    """The fingerprint is part of the Arrow cache's id, so another state of the files never meets an old cache."""

    fingerprint: str = ""


class SegmentationFiles(datasets.GeneratorBasedBuilder):
    """Images and masks from files. Masks do not go through `Image(mode="L")`, which would turn ids into greys."""

    VERSION = datasets.Version("2.0.0")
    BUILDER_CONFIG_CLASS = SegmentationFilesConfig
    source: Source

    def _info(self) -> datasets.DatasetInfo:
        features = {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "name": datasets.Value("string")}
        return datasets.DatasetInfo(features=datasets.Features(features))

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"pairs": pairs})
            for split, pairs in self.source.splits.items()
        ]

    def _generate_examples(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, pair in enumerate(track(pairs, "reading images and masks", len(pairs))):
            image, label = open_image(pair.image), None
            check_depth(image, pair.image)
            if pair.mask is not None:
                mask = open_image(pair.mask)
                if image.size != mask.size:
                    raise UserError(
                        f"{pair.image} is {image.width}x{image.height} pixels, but its mask {pair.mask} is "
                        f"{mask.width}x{mask.height}. Restore both from the same source."
                    )
                label = {"bytes": encode_label(self.source.read_ids(pair.mask)), "path": None}
            yield index, {"image": str(pair.image), "label": label, "name": pair.name}
