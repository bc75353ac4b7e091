"""Oxford-IIIT Pet (Parkhi et al., 2012) as a `datasets` builder, from its official layout.

    images/<Breed>_<n>.jpg
    annotations/trimaps/<Breed>_<n>.png     1 pet, 2 background, 3 boundary ("not classified")
    annotations/{trainval,test}.txt         "<Breed>_<n> CLASS-ID SPECIES BREED-ID" on each line

Only what the two lists name is read: the folders also hold strays (a GIF under a .jpg name, .mat files, `._*.png`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from hfseg.data.archive import extract_archives
from hfseg.data.files import build, check_same_size, digest, encode_label, file_state, open_image
from hfseg.errors import UserError
from hfseg.labels import LabelSet

BASE_URL = "https://thor.robots.ox.ac.uk/pets/"
MD5 = {
    "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
}
MAX_UNPACKED_BYTES = 4 << 30  # the official archives unpack to 0.9 GB
VALIDATION_PERCENT = 10

PET, BACKGROUND, BOUNDARY = (230, 159, 0), (0, 114, 178), (204, 121, 167)


def pet_labels(boundary: str) -> LabelSet:
    """The classes: the boundary ring is one of them ("class") or does not count ("ignore")."""
    if boundary == "ignore":
        return LabelSet(["pet", "background"], palette=[PET, BACKGROUND])
    return LabelSet(["pet", "background", "boundary"], palette=[PET, BACKGROUND, BOUNDARY])


@dataclass
class OxfordPetConfig(datasets.BuilderConfig):
    """Every field is part of the Arrow cache's id, so another state of the folder never meets an old cache."""

    root: str = ""
    boundary: str = "class"
    fingerprint: str = ""


class OxfordPet(datasets.GeneratorBasedBuilder):
    """Splits `train`, `validation` (10 % of each breed of the official trainval, by name) and `test`.

    Columns: `image` (RGB), `label` (one channel: 0 pet, 1 background, 2 boundary or 255), `name`.
    """

    VERSION = datasets.Version("1.0.0")
    BUILDER_CONFIG_CLASS = OxfordPetConfig

    def _info(self) -> datasets.DatasetInfo:
        features = {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "name": datasets.Value("string")}
        return datasets.DatasetInfo(features=datasets.Features(features), license="CC BY-SA 4.0")

    def _split_generators(self, dl_manager: datasets.DownloadManager) -> list[datasets.SplitGenerator]:
        root = Path(self.config.root)
        train, validation = split_trainval(read_list(root, "trainval"))
        names = {"train": train, "validation": validation, "test": read_list(root, "test")}
        leaked = sorted(set(names["test"]) & {*train, *validation})
        if leaked:
            raise UserError(
                f"{root}/annotations: {len(leaked)} images are in trainval.txt and in test.txt, such as {leaked[0]}. "
                "Restore the official lists; a score on training images means nothing."
            )
        return [datasets.SplitGenerator(name=split, gen_kwargs={"names": names[split]}) for split in names]

    def _generate_examples(self, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        root = Path(self.config.root)
        for index, name in enumerate(names):
            image = root / "images" / f"{name}.jpg"
            label = read_label(image, root / "annotations" / "trimaps" / f"{name}.png", self.config.boundary)
            yield index, {"image": str(image), "label": {"bytes": label, "path": None}, "name": name}


def load_oxford_pet(root: Path | None, boundary: str, cache_dir: Path) -> tuple[datasets.DatasetDict, LabelSet]:
    """Splits and classes, from the official folders or archives below `root` or from the download."""
    root = prepare_root(root, cache_dir).resolve()
    fingerprint = folder_fingerprint(root)
    builder = OxfordPet(cache_dir=str(cache_dir), root=str(root), boundary=boundary, fingerprint=fingerprint)
    return build(builder), pet_labels(boundary)


def read_list(root: Path, split: str) -> list[str]:
    """The names in one of the official lists.

    Raises:
        UserError: the list is missing or empty.
    """
    path = root / "annotations" / f"{split}.txt"
    if not path.is_file():
        raise UserError(f"{path} is missing. data.root must hold images/ and annotations/, or {' and '.join(MD5)}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}). Restore the official list.") from error
    names = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not names:
        raise UserError(f"{path} names no image: the {split} split is empty. Restore the official list.")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise UserError(
            f"{path} names {len(repeated)} images twice, such as {repeated[0]}. Restore the official list."
        )
    return names


def split_trainval(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Holds out 10 % of each breed, at least one image, for choosing; which ones depends on their names alone.

    Raises:
        UserError: nothing is left for one of the two.
    """
    breeds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        breeds[name.rpartition("_")[0]].append(name)
    held_out: set[str] = set()
    for members in breeds.values():
        ranked = sorted(members, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        held_out.update(ranked[: max(1, round(len(members) * VALIDATION_PERCENT / 100))])
    train = [name for name in names if name not in held_out]
    if not train:
        raise UserError(
            f"annotations/trainval.txt has {len(names)} images, one of each breed: none is left for training after "
            "one of each is held out for validation. Add images to the list."
        )
    return train, [name for name in names if name in held_out]


def read_label(image_path: Path, trimap_path: Path, boundary: str) -> bytes:
    """Checks an image and its trimap, and returns the label map as PNG.

    Raises:
        UserError: a file is missing or unreadable, the sizes differ, or the trimap holds other values than 1, 2, 3.
    """
    image, trimap = open_image(image_path), open_image(trimap_path)
    check_same_size(image, trimap, image_path, trimap_path)
    values = np.asarray(trimap)
    wrong = (
        sorted(set(np.unique(values).tolist()) - {1, 2, 3}) if values.ndim == 2 else [f"{values.shape[2]} channels"]
    )
    if wrong:
        raise UserError(
            f"{trimap_path} holds {wrong[:8]}; an Oxford trimap has one channel of 1 (pet), 2 (background) and "
            "3 (boundary). If this is another data set's mask, it needs another `data.name`."
        )
    label = (values - 1).astype(np.uint8)
    if boundary == "ignore":
        label[label == 2] = 255
    return encode_label(label)


def prepare_root(root: Path | None, cache_dir: Path) -> Path:
    """The folder that holds `images/` and `annotations/`: `root` itself, its unpacked archives, or the download.

    Raises:
        UserError: nothing usable under `root`, a damaged archive, or a failed download; says what to do.
    """
    if root is None:
        folder = cache_dir / "oxford_pet" / "official"
        return folder if folder.exists() else extract_archives(_download(cache_dir), folder, MAX_UNPACKED_BYTES)
    if not root.is_dir():
        raise UserError(
            f"data.root={root} is not a folder. Point it at the folder with images/ and annotations/ or with "
            f"{' and '.join(MD5)}; leave it out to download them from {BASE_URL}."
        )
    archives = [root / name for name in MD5]
    if (root / "images").is_dir() and (root / "annotations").is_dir():
        return root
    missing = [path.name for path in archives if not path.is_file()]
    if missing:
        raise UserError(
            f"{root} holds neither images/ and annotations/ nor both archives (missing: {', '.join(missing)}). "
            f"Get them from {BASE_URL}."
        )
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in archives]
    folder = cache_dir / "oxford_pet" / f"unpacked-{digest(state)}"
    return extract_archives(archives, folder, MAX_UNPACKED_BYTES)


def _download(cache_dir: Path) -> list[Path]:
    manager = datasets.DownloadManager(download_config=datasets.DownloadConfig(cache_dir=cache_dir / "downloads"))
    archives = []
    for name, expected in MD5.items():
        try:
            path = Path(manager.download(BASE_URL + name))
        except (OSError, ConnectionError) as error:
            raise UserError(
                f"Could not download {BASE_URL}{name}: {error}. Run the command again, or fetch {' and '.join(MD5)} "
                "by hand into a folder and set data.root to it."
            ) from error
        with path.open("rb") as file:
            got = hashlib.file_digest(file, "md5").hexdigest()
        if got != expected:
            path.unlink()
            raise UserError(f"{BASE_URL}{name} arrived damaged: md5 {got}, expected {expected}. Run it again.")
        archives.append(path)
    return archives


def folder_fingerprint(root: Path) -> str:
    """Changes when a file that the lists name, or a list, is added, removed, replaced or edited."""
    annotations = root / "annotations"
    names = [name for split in ("trainval", "test") for name in read_list(root, split)]
    files = [annotations / "trainval.txt", annotations / "test.txt"]
    files += [root / "images" / f"{name}.jpg" for name in names]
    files += [annotations / "trimaps" / f"{name}.png" for name in names]
    return digest([(path.name, *file_state(path)) for path in files])
