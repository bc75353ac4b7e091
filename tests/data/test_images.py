"""Images as they come: damaged in any place, of every kind and depth, turned, too large, no files at all."""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfseg import UserError
from hfseg.config import DataConfig
from hfseg.data import (
    allow_pixels,
    is_image,
    is_unreadable_image,
    load_dataset,
    open_header,
    open_image,
    orientation_of,
)
from hfseg.data.images import FORMATS, SUFFIXES
from hfseg.data.rows import EncodedRow
from hfseg.doctor.inspection import Sample, inspect
from hfseg.inference.predict import read_image
from hfseg.labels import LabelSet

SIDES = (16, 12)
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDES[1], SIDES[0], 3), dtype=np.uint8)
LABELS = LabelSet(["a", "b"])


def no_mask(_: object) -> np.ndarray:
    return np.zeros(SIDES[::-1], np.uint8)


# --- damaged files


def encoded(kind: str) -> bytes:
    """A whole file with EXIF, of a format and, for TIFF, a compression."""
    name, _, compression = kind.partition("-")
    exif = Image.Exif()
    exif[0x0112], exif[0x0131], exif[0x011A] = 3, "a camera", 72.0
    image, buffer = Image.fromarray(PIXELS), BytesIO()
    options = {"compression": compression} if compression else {}
    options |= {"exif": exif} if name in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    image.convert("P" if name == "GIF" else "RGB").save(buffer, name, **options)
    return buffer.getvalue()


def mend_png(data: bytearray) -> None:
    """Makes the checksums right, without which a PNG is refused before anything in it is looked at."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


def mutated(kind: str, number: int) -> Iterator[bytes]:
    """Files with 1 to 5 wrong bytes, more often near the head, and some cut off."""
    whole = encoded(kind)
    for index in range(number):
        rng = np.random.default_rng([index, len(whole)])
        data = bytearray(whole)
        for _ in range(rng.integers(1, 6)):
            end = len(whole) if rng.random() < 0.5 else min(len(whole), 300)
            data[rng.integers(8, end)] = rng.integers(0, 256)
        if kind == "PNG" and rng.random() < 0.8:
            mend_png(data)
        yield bytes(data[: rng.integers(8, len(whole))] if rng.random() < 0.15 else data)


def by_training(path: Path) -> None:
    EncodedRow("x.img", no_mask(path), {"bytes": path.read_bytes(), "path": None}).pixels()


def by_check(path: Path) -> None:
    for quick in (False, True):
        sample = Sample("train", "x", path, path, "x.img", "x.img", lambda file: np.asarray(open_image(file)))
        for finding in inspect(sample, LABELS, quick).findings:
            if finding.fault == "unreadable":
                raise UserError(f"{finding.files[0]}: {finding.what}")


READERS: dict[str, Callable[[Path], object]] = {
    "training": by_training,
    "loading": lambda path: open_image(path),
    "check": by_check,
    "predict": lambda path: read_image(path),
}
KINDS = ("PNG", "JPEG", "TIFF", "TIFF-tiff_lzw", "TIFF-tiff_adobe_deflate", "WEBP", "GIF", "BMP")


def error_of(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except UserError as error:
        return str(error)
    return None


def read_all(folder: Path, kind: str, number: int) -> dict[str, list[int]]:
    """Reads mutated files by every reader; how many gave an image, and how many a UserError that names the file."""
    path, counts = folder / "x.img", {reader: [0, 0] for reader in READERS}
    for data in mutated(kind, number):
        path.write_bytes(data)
        for reader, read in READERS.items():
            error = error_of(read, path)
            assert "x.img" in (error or "x.img")
            counts[reader][error is not None] += 1
    return counts


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong sizes in a header are refused before they cost seconds."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_an_image_or_are_named(tmp_path: Path, kind: str, small_limit: None) -> None:
    counts = read_all(tmp_path, kind, 150)
    assert all(min(numbers) > 0 for numbers in counts.values()), counts


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_damaged_files(tmp_path: Path, kind: str, small_limit: None) -> None:
    print(kind, read_all(tmp_path, kind, 10_000 // len(KINDS)))  # noqa: T201


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("size", [(1 << 14, 1 << 14), ((1 << 31) - 1, 1), (1 << 20, 1 << 20)])
def test_huge_declared_sizes_are_refused(tmp_path: Path, reader: str, size: tuple[int, int]) -> None:
    data = bytearray(encoded("PNG"))
    data[16:24] = struct.pack(">II", *size)
    mend_png(data)
    (tmp_path / "x.img").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.img.* (is too large|cannot be read)"):
        READERS[reader](tmp_path / "x.img")


# --- turned images


def exif_with_text_as_rational(orientation: int) -> bytes:
    """An orientation, and `Software` as a rational number: Pillow reads it and cannot write it."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0) + struct.pack("<HHII", 0x0131, 5, 1, 38)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4) + struct.pack("<II", 72, 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_once(tmp_path: Path, kind: str, orientation: int) -> None:
    marked = np.zeros((16, 24, 3), np.uint8)
    marked[:8, :8] = 255  # the corner that tells all eight apart
    marked[:8, 16:] = 128
    turns = [
        lambda a: a, lambda a: a[:, ::-1], lambda a: a[::-1, ::-1], lambda a: a[::-1],
        lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, -1), lambda a: np.rot90(a.swapaxes(0, 1), 2),
        lambda a: np.rot90(a, 1),
    ]  # fmt: skip
    path, exif = tmp_path / "x.img", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(marked).save(path, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = turns[orientation - 1](marked)
    for image in (read_image(path), read_image(Image.open(path)), open_image(path)):
        assert np.abs(np.asarray(image).astype(int) - expected).max() < 30
        assert orientation_of(image) == 1
    found = inspect(Sample("predict", "x", path, None, "x", "", no_mask), LABELS)
    assert found.image is not None
    assert found.image.upright == expected.shape[1::-1]


@pytest.mark.parametrize("reader", READERS)
def test_other_exif_tags_do_not_count(tmp_path: Path, reader: str) -> None:
    path = tmp_path / "x.img"
    Image.fromarray(PIXELS).save(path, "JPEG", exif=exif_with_text_as_rational(3))
    READERS[reader](path)
    plain = np.asarray(read_image(path)).astype(int)
    Image.fromarray(PIXELS[::-1, ::-1]).save(path, "JPEG")
    assert np.abs(plain - np.asarray(read_image(path))).mean() < 25  # JPEG of noise; unturned, it is 80


# --- kinds and depths


def pnm(kind: str, white: int, values: list[int]) -> bytes:
    width = len(values) // (3 if kind == "P6" else 1)
    return f"{kind} {width} 1 {white}\n".encode() + b"".join(v.to_bytes(1 + (white > 255), "big") for v in values)


def saved(values: np.ndarray | Image.Image, name: str) -> bytes:
    buffer = BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(buffer, name)
    return buffer.getvalue()


def transparent(mode: str) -> Image.Image:
    return Image.fromarray(np.dstack([PIXELS, np.full(PIXELS.shape[:2], 0, np.uint8)])).convert(mode)


GREY = np.array([[0, 85, 170, 255]], np.uint8)
READ: dict[str, tuple[bytes, np.ndarray]] = {  # and the first line of RGB that is to come of them
    "1 bit": (saved(Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), "PNG"), np.array([0, 0, 255, 255])),
    "pgm of 15": (pnm("P5", 15, [0, 5, 10, 15]), GREY[0]),
    "ppm of 1023": (pnm("P6", 1023, [v for v in (0, 341, 682, 1023) for _ in range(3)]), GREY[0]),
    "ppm of 65535": (pnm("P6", 65535, [v * 257 for v in (0, 85, 170, 255) for _ in range(3)]), GREY[0]),
    "rgba": (saved(transparent("RGBA"), "PNG"), PIXELS[0]),
    "cmyk": (saved(Image.fromarray(PIXELS).convert("CMYK"), "TIFF"), PIXELS[0]),
    "all black": (saved(np.zeros((1, 4), np.float32), "TIFF"), np.zeros(4)),
}
REFUSED: dict[str, bytes] = {
    "float of 0..1": saved(np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "TIFF"),
    "float of 0..1.5": saved(np.linspace(0, 1.5, 12, dtype=np.float32).reshape(3, 4), "TIFF"),
    "float of 0..255": saved(np.linspace(0, 255, 12, dtype=np.float32).reshape(3, 4), "TIFF"),
    "float below 0": saved(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "TIFF"),
    "float not a number": saved(np.full((3, 4), np.nan, np.float32), "TIFF"),
    "16 bit": saved(np.array([[0, 65535]], np.uint16), "PNG"),
    "dark 16 bit": saved(np.array([[0, 200]], np.uint16), "TIFF"),
    "32 bit": saved(np.array([[0, 1]], np.int32), "TIFF"),
    "pgm of 1023": pnm("P5", 1023, [0, 341, 682, 1023]),
    "dark pgm of 65535": pnm("P5", 65535, [0, 100, 200, 255]),
}


@pytest.mark.parametrize("kind", READ)
def test_every_kind_is_read_with_its_values(tmp_path: Path, kind: str) -> None:
    data, expected = READ[kind]
    path = tmp_path / "x.img"
    path.write_bytes(data)
    expected = expected if expected.ndim == 2 else np.repeat(expected[:, None], 3, axis=1)
    assert np.abs(np.asarray(read_image(path))[0].astype(int) - expected).max() <= 1
    row = EncodedRow("x", np.zeros(np.asarray(read_image(path)).shape[:2], np.uint8), {"bytes": data, "path": None})
    np.testing.assert_array_equal(row.pixels(), np.asarray(read_image(path)))


@pytest.mark.parametrize("kind", REFUSED)
def test_values_whose_white_is_not_known_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(REFUSED[kind])
    with pytest.raises(UserError, match=r"x\.img is a .* with values .*Convert the images to 8 bits"):
        read_image(path)
    with pytest.raises(UserError, match=r"'x\.img' is a .* with values .*Convert the images to 8 bits"):
        by_training(path)
    found = inspect(Sample("predict", "x", path, None, "x", "", no_mask), LABELS)
    assert "deep-image" in [finding.fault for finding in found.findings]


# --- what is an image


def test_suffixes_are_those_that_pillow_reads() -> None:
    assert {".jpg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif", ".jp2"} <= SUFFIXES
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt", ".json", ".db"} & SUFFIXES
    assert is_image(Path("X.JFIF"))
    for suffix in (".heic", ".dng", ".svg", ".eps"):
        assert is_unreadable_image(Path(f"x{suffix}"))
    assert is_image(Path("x.avif")) != is_unreadable_image(Path("x.avif"))  # by the version of Pillow
    assert "EPS" not in FORMATS  # which is run by another program


def test_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    for read in (read_image, open_image, open_header):
        with pytest.raises(UserError, match=r"x\.jpg is no file but"):
            read(tmp_path / "x.jpg")
    with pytest.raises(UserError, match=r"is no file but"):
        read_image(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    os.mkfifo(tmp_path / "data" / "images" / "x.jpg")
    (tmp_path / "data" / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"images/x\.jpg is no file but a pipe"):
        load_dataset(DataConfig(name="folder", root=tmp_path / "data"))


def test_frames_after_the_first_are_reported(tmp_path: Path) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    for name in ("x.tif", "x.gif", "x.webp"):
        path = tmp_path / name
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert inspect(Sample("predict", "x", path, None, "x", "", no_mask), LABELS).has_more_frames
        frames[0].save(tmp_path / f"single-{name}")
        single = Sample("predict", "x", tmp_path / f"single-{name}", None, "x", "", no_mask)
        assert not inspect(single, LABELS).has_more_frames
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "x.tif")), PIXELS)


def test_how_many_pixels_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = tmp_path / "x.img"
    Image.fromarray(PIXELS).save(path, "PNG")  # 192 pixels
    allow_pixels(None)
    with pytest.raises(UserError, match=r"x\.img is too large \(.*192 pixels.*data\.max_pixels"):
        read_image(path)
    allow_pixels(192)
    assert read_image(path).size == SIDES
    allow_pixels(190)
    with pytest.raises(UserError, match="is too large"):
        read_image(path)
