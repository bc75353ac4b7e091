import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor

from hfseg import (
    DataConfig,
    EvalSet,
    LabelSet,
    SegCollator,
    TrainSet,
    TrainTransform,
    TransformsConfig,
    UserError,
    load_dataset,
)
from hfseg.data.images import decode_image


def sample(label: torch.Tensor) -> dict:
    return {"pixel_values": torch.zeros(3, 8, 8), "labels": label, "name": "some_pet_7"}


def test_native_sizes_survive_padding(labels: LabelSet) -> None:
    batch = SegCollator(labels)([sample(torch.ones(3, 5).long()), sample(torch.zeros(4, 2).long())])
    assert batch["labels"].shape == (2, 4, 5)
    assert batch["sizes"].tolist() == [[3, 5], [4, 2]]
    assert (batch["labels"] == 255).sum() == 2 * 20 - 15 - 8


def test_images_of_different_sizes_are_not_padded(labels: LabelSet) -> None:
    samples = [
        {"pixel_values": torch.ones(3, *size), "labels": torch.zeros(size, dtype=torch.int64), "name": "a"}
        for size in ((4, 5), (6, 2))
    ]
    batch = SegCollator(labels)(samples)
    assert [tuple(image.shape) for image in batch["pixel_values"]] == [(1, 3, 4, 5), (1, 3, 6, 2)]
    assert next(iter(batch)) == "labels"  # whose rows the Trainer counts
    assert SegCollator(labels)(samples[:1] * 2)["pixel_values"].shape == (2, 3, 4, 5)
    for each in samples:
        each["normalisation"] = torch.ones(2, 3)
    with pytest.raises(UserError, match=r"sizes \[\(4, 5\), \(6, 2\)\]"):
        SegCollator(labels)(samples)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (torch.full((2, 2), 3), "label ids [3]"),
        (torch.full((2, 2), -1), "label ids [-1]"),
        (torch.zeros(2, 2), "torch.float32"),
        (torch.zeros(1, 2, 2).long(), "(1, 2, 2)"),
    ],
)
def test_wrong_labels_are_named(labels: LabelSet, label: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError) as error:
        SegCollator(labels)([sample(torch.zeros(2, 2).long()), sample(label)])
    assert "'some_pet_7'" in str(error.value)
    assert said in str(error.value)


def test_evaluation_leaves_labels_alone() -> None:
    config = DataConfig(name="synthetic_pet", synthetic={"num_trainval": 16, "num_test": 4, "size": 64})
    data, _ = load_dataset(config)
    row = data["test"][0]
    item = EvalSet(data["test"], SegformerImageProcessor(size={"height": 32, "width": 48}))[0]
    assert item["pixel_values"].shape == (3, 32, 48)
    assert tuple(item["labels"].shape) == (row["image"].height, row["image"].width)


# --- every kind of file

HEIGHT, WIDTH = 80, 112
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
PIXELS = np.stack([ROWS * 3, COLUMNS * 2, 255 - ROWS - COLUMNS], axis=-1).astype(np.uint8)
IDS = ((ROWS // 20) * 4 + COLUMNS // 28).astype(np.uint8)  # 0..15


def as_jpeg(path: Path, orientation: int | None = None, mode: str = "RGB") -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    turns = {None: PIXELS, 3: PIXELS[::-1, ::-1], 6: np.rot90(PIXELS, 1), 8: np.rot90(PIXELS, -1)}
    Image.fromarray(turns[orientation]).convert(mode).save(path, "JPEG", quality=95, exif=exif)


def as_rgba_png(path: Path) -> None:
    Image.fromarray(np.dstack([PIXELS, np.full((HEIGHT, WIDTH), 7, np.uint8)])).save(path, "PNG")


def as_16_bit_png(path: Path) -> None:
    deep = PIXELS.astype(">u2") * 257
    lines = b"".join(b"\0" + row.tobytes() for row in deep)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = WIDTH.to_bytes(4, "big") + HEIGHT.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


IMAGES: dict[str, tuple[Callable[[Path], None], int]] = {  # and how far a pixel may be off
    "jpeg": (as_jpeg, 12),
    "jpeg upside down": (lambda path: as_jpeg(path, 3), 12),
    "jpeg turned": (lambda path: as_jpeg(path, 6), 12),
    "jpeg turned back": (lambda path: as_jpeg(path, 8), 12),
    "cmyk jpeg": (lambda path: as_jpeg(path, mode="CMYK"), 12),
    "rgba png": (as_rgba_png, 0),
    "16-bit png": (as_16_bit_png, 0),
    "gif": (lambda path: Image.fromarray(PIXELS).save(path, "GIF"), 60),
    "png": (lambda path: Image.fromarray(PIXELS).save(path, "PNG"), 0),
}


def palette_mask(path: Path) -> None:
    mask = Image.fromarray(IDS, "P")
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())  # colours that say nothing
    mask.save(path)


MASKS: dict[str, Callable[[Path], None]] = {
    "8-bit": lambda path: Image.fromarray(IDS).save(path),
    "palette": palette_mask,
    "16-bit": lambda path: Image.fromarray(IDS.astype(np.uint16)).save(path),
    "32-bit": lambda path: Image.fromarray(IDS.astype(np.int32)).save(path.with_suffix(".tiff")),
}


def one_row(tmp_path: Path, image: Callable[[Path], None], mask: Callable[[Path], None]) -> datasets.Dataset:
    image(tmp_path / "image.jpg")  # whatever it is
    mask(tmp_path / "mask.png")
    masks = [path for path in tmp_path.iterdir() if path.stem == "mask"]
    features = {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "name": datasets.Value("string")}
    row: dict[str, Any] = {"image": [str(tmp_path / "image.jpg")], "label": [str(masks[0])], "name": ["a"]}
    return datasets.Dataset.from_dict(row, datasets.Features(features))


def plain_crop() -> TrainTransform:
    """80 x 80 pixels as they are."""
    config = TransformsConfig(size=HEIGHT, scale=None, cat_max_ratio=None, flip=False, photometric=False)
    return TrainTransform(config, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_of_image_is_decoded_right(tmp_path: Path, kind: str, cache: bool) -> None:
    write, tolerance = IMAGES[kind]
    data = one_row(tmp_path, write, MASKS["8-bit"])
    train, evaluation = TrainSet(data, plain_crop(), cache=cache)[0], make_eval_set(data, cache)[0]
    starts = [start for start in range(WIDTH - HEIGHT + 1)
              if np.array_equal(train["labels"].numpy(), IDS[:, start : start + HEIGHT])]  # fmt: skip
    got = train["pixel_values"].numpy().transpose(1, 2, 0).astype(int)
    distances = [np.abs(got - PIXELS[:, start : start + HEIGHT]).max() for start in starts]
    assert min(distances) <= tolerance
    whole = evaluation["pixel_values"].numpy().transpose(1, 2, 0) * 255
    assert np.abs(whole - PIXELS).max() <= tolerance + 0.01
    np.testing.assert_array_equal(whole.round(), np.asarray(data[0]["image"]))  # as `datasets` decodes it
    np.testing.assert_array_equal(evaluation["labels"], IDS)


def make_eval_set(data: datasets.Dataset, cache: bool = False) -> EvalSet:
    return EvalSet(data, SegformerImageProcessor(do_resize=False, do_normalize=False), cache)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_of_mask_keeps_its_ids(tmp_path: Path, kind: str, cache: bool) -> None:
    data = one_row(tmp_path, as_jpeg, MASKS[kind])
    labels = LabelSet([str(index) for index in range(16)])
    for sample in (make_eval_set(data, cache)[0], TrainSet(data, plain_crop(), cache=cache)[0]):
        batch = SegCollator(labels)([sample])
        ids = batch["labels"][0].numpy()
        assert any(np.array_equal(ids, IDS[:, left : left + ids.shape[1]]) for left in range(WIDTH))


def test_masks_that_are_none_and_files_that_are_broken_are_named(tmp_path: Path) -> None:
    data = one_row(tmp_path, as_jpeg, lambda path: Image.fromarray(PIXELS).save(path))
    with pytest.raises(UserError, match=r"label map of sample 'a' cannot be read: .*\(80, 112, 3\)"):
        make_eval_set(data)[0]
    data = one_row(tmp_path, as_jpeg, MASKS["8-bit"])
    image = tmp_path / "image.jpg"
    image.write_bytes(image.read_bytes()[:-100])
    with pytest.raises(UserError, match="image of sample 'a' cannot be read"):
        make_eval_set(data)[0]
    image.unlink()
    with pytest.raises(UserError, match="image of sample 'a' is missing"):
        TrainSet(data, plain_crop())[0]
    Image.fromarray(PIXELS[:50]).save(image)
    for cache in (False, True):
        with pytest.raises(UserError, match="'a' has 112x50 pixels, its label map 112x80"):
            TrainSet(data, plain_crop(), cache=cache)[0]


@pytest.mark.parametrize(("orientation", "shape"), [(None, (803, 901)), (6, (808, 904)), (6, (803, 901))])
def test_a_jpeg_is_decoded_no_larger_than_needed(orientation: int | None, shape: tuple[int, int]) -> None:
    """At every fraction, against the block means of the whole image."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([rows / 4, columns / 4, (rows + columns) / 8], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    buffer = BytesIO()
    Image.fromarray(pixels if orientation is None else np.rot90(pixels)).save(buffer, "JPEG", quality=95, exif=exif)
    whole = decode_image(buffer.getvalue())
    assert whole.shape[:2] == shape
    for reduction in (2, 4, 8):
        reduced = decode_image(buffer.getvalue(), reduction)
        if orientation is not None and shape == (803, 901):  # its blocks would be shifted
            np.testing.assert_array_equal(reduced, whole)
            continue
        expected = np.asarray(Image.fromarray(pixels).reduce(reduction)).astype(int)
        assert reduced.shape == expected.shape
        assert np.abs(reduced - expected).max() <= 6
        assert np.abs(reduced - expected).mean() < 1


def test_mixed_label_types_and_large_ignore_indices_become_int64() -> None:
    small, large = torch.ones(3, 5, dtype=torch.uint8), torch.ones(4, 2, dtype=torch.int64)
    assert SegCollator(LabelSet(["a", "b"]))([sample(small)])["labels"].dtype == torch.uint8
    assert SegCollator(LabelSet(["a", "b"]))([sample(small), sample(large)])["labels"].dtype == torch.int64
    wide = SegCollator(LabelSet(["a", "b"], ignore_index=999))([sample(small), sample(small[:2])])["labels"]
    assert (wide == 999).sum() == 5
