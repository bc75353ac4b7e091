"""Where the samples of a data set are (`Source`), and the one builder that makes a `datasets.DatasetDict` of them.

Each data set has a file with a function that returns its Source. Training goes through the builder, which stops at the
first fault; the label doctor goes through the same Source and lists them all.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from hfseg.data.files import build, check_depth, check_same_size, digest, encode_label, file_state, open_image
from hfseg.errors import UserError
from hfseg.labels import LabelSet

HELD_OUT_PERCENT = 10


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
            that is not in the data set's coding. A frozen dataclass: workers pickle it, and its fields are part of
            the fingerprint.
        listings: files that say what belongs to the data set, such as lists and class files.
        strays: masks without an image, which are left out, and images without a mask. Those are in their split too:
            loading refuses them.
        unread: files among them that are no images.
    """

    name: str
    root: Path
    labels: LabelSet
    splits: dict[str, list[Pair]]
    read_ids: Callable[[Path], NDArray[np.integer]]
    listings: Sequence[Path] = ()
    strays: Sequence[Path] = field(default=(), repr=False)
    unread: Sequence[Path] = field(default=(), repr=False)

    def fingerprint(self) -> str:
        """Changes when a file is added, removed, replaced or edited, and when masks are read in another way."""
        files = [*self.listings]
        files += [path for pairs in self.splits.values() for pair in pairs for path in (pair.image, pair.mask) if path]
        names = {split: [pair.name for pair in pairs] for split, pairs in self.splits.items()}
        return digest((self.name, self.labels, names, self.read_ids, [(str(f), *file_state(f)) for f in files]))

    def load(self, cache_dir: Path) -> datasets.DatasetDict:
        """Reads and checks every file once, into the Arrow cache; columns `image`, `label`, `name`.

        Raises:
            UserError: the first thing that is wrong.
        """
        check_splits(self)
        builder = SegmentationFiles(cache_dir=str(cache_dir), dataset_name=self.name, fingerprint=self.fingerprint())
        builder.source = self
        return build(builder)


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
        for index, pair in enumerate(pairs):
            image, label = open_image(pair.image), None
            check_depth(image, pair.image)
            if pair.mask is not None:
                check_same_size(image, open_image(pair.mask), pair.image, pair.mask)
                label = {"bytes": encode_label(self.source.read_ids(pair.mask)), "path": None}
            yield index, {"image": str(pair.image), "label": label, "name": pair.name}


def choose_held_out(names: Sequence[str]) -> set[int]:
    """Which 10 % of the names, at least one, are held out: those whose hashes are the smallest."""
    ranked = sorted(range(len(names)), key=lambda index: hashlib.sha256(names[index].encode()).hexdigest())
    return set(ranked[: max(1, round(len(names) * HELD_OUT_PERCENT / 100))])


def hold_out(pairs: Sequence[Pair], group: Callable[[Pair], str]) -> tuple[list[Pair], list[Pair]]:
    """Splits off 10 % of each group, at least one sample, for validation; which ones depends on their names alone.

    Raises:
        UserError: nothing would be left for training.
    """
    groups: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[group(pair)].append(pair)
    held_out: set[Pair] = set()
    for members in groups.values():
        held_out.update(members[index] for index in choose_held_out([pair.name for pair in members]))
    train = [pair for pair in pairs if pair not in held_out]
    if not train:
        raise UserError(
            f"{len(pairs)} training images, one of each kind: none is left after one of each is held out for "
            "validation. Add images."
        )
    return train, [pair for pair in pairs if pair in held_out]
