"""How masks are stored: ids are read as they were saved, or the mask is refused with a way that works."""

import re
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hfseg import DataConfig, LabelSet, UserError
from hfseg.data import find_source
from hfseg.data.classes import named_classes, read_class_table
from hfseg.data.masks import MaskReader
from hfseg.doctor import check_source

IDS = np.array([[0, 2, 1, 2, 0], [0, 2, 2, 2, 1]], np.uint8)
LABELS = LabelSet(["sky", "road", "car"])
READER = MaskReader(LABELS)
COLOURS = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
COLOURED = MaskReader(LABELS, tuple((colour, id_) for id_, colour in enumerate(COLOURS)))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(data: bytes, bits: int, sample_format: int = 1, photometric: int = 1) -> bytes:
    """One strip of IDS' size, little-endian."""
    height, width = IDS.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height}
    tags |= {279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    padded = data + b"\0" * (len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def pack(bits: int) -> bytes:
    rows = (IDS[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(len(IDS), -1).astype(np.uint8)
    return np.packbits(rows, axis=1).tobytes()


def png(data: NDArray[np.integer], depth: int, colour_type: int) -> bytes:
    """From samples (H, W, C), for depths that Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in data)
    header = struct.pack(">IIBBBBB", data.shape[1], data.shape[0], depth, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def palette_image(ids: NDArray[np.uint8], colours: object) -> Image.Image:
    image = Image.new("P", ids.shape[::-1])
    image.putdata(ids.ravel().tolist())
    image.putpalette(np.ravel(colours).tolist())
    return image


def refusal(reader: MaskReader, data: bytes) -> str:
    with pytest.raises(UserError) as error:
        reader.from_bytes(data, "MASK")
    assert str(error.value).startswith("MASK")
    return str(error.value)


def pgm(largest: int, kind: str, magic: str = "P5") -> bytes:
    return f"{magic}\n# by hand\n5 # wide\n2\n{largest}\n".encode() + IDS.astype(kind).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        pgm(2, "u1"),
        pgm(7, "u1"),
        pgm(255, "u1"),
        pgm(300, ">u2"),
        pgm(65535, ">u2"),
        b"P2 5 2 2 " + b" ".join(str(id_).encode() for id_ in IDS.ravel()) + b"\n",
        tiff(pack(2), 2),
        tiff(pack(4), 4),
        tiff(IDS.tobytes(), 8),
        tiff(IDS.astype("<i1").tobytes(), 8, sample_format=2),
        tiff(IDS.astype("<i2").tobytes(), 16, sample_format=2),
        tiff(IDS.astype("<u4").tobytes(), 32),
        png(IDS[..., None].astype(np.uint16), 16, 0),
        encode(Image.fromarray(IDS), "BMP"),
        encode(palette_image(IDS, COLOURS), "TIFF"),
        encode(palette_image(IDS, COLOURS), "PNG", bits=2),
    ],
)
def test_ids_as_they_were_saved(data: bytes) -> None:
    np.testing.assert_array_equal(READER.from_bytes(data, "MASK"), IDS)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tiff(IDS.astype("<f4").tobytes(), 32, sample_format=3), "floating-point numbers"),
        (tiff((2 - IDS).tobytes(), 8, photometric=0), "in which 0 is white"),
        (tiff(pack(1), 1, photometric=0), "in which 0 is white"),
        (encode(Image.fromarray(IDS > 1), "PPM"), "1 is black to some"),
        (b"P6 5 2 2 " + np.repeat(IDS, 3).tobytes(), "colours of 0..2"),
        (png(np.stack([IDS, IDS * 0 + 255], -1).astype(np.uint16) * 257, 16, 4), "8 are lost"),
        (png(np.stack([IDS] * 3, -1).astype(np.uint16), 16, 2), "8 are lost"),
        (encode(Image.fromarray(IDS), "TIFF", save_all=True, append_images=[Image.fromarray(IDS)]), "holds 2 images"),
        (encode(Image.fromarray(IDS), "JPEG"), "is a JPEG"),
        (encode(Image.fromarray(IDS), "JPEG2000"), "is a JPEG 2000"),
        (encode(Image.fromarray(IDS), "TIFF", compression="jpeg"), "is a TIFF with jpeg inside"),
        (encode(Image.fromarray(IDS), "WEBP"), "is a lossy WebP"),
        (encode(Image.fromarray(IDS), "WEBP", lossless=True), "three equal channels"),
        (encode(Image.fromarray(IDS).convert("CMYK"), "TIFF"), "Pillow's mode CMYK"),
        (encode(Image.fromarray(np.where(IDS == 1, 0, IDS).astype(np.uint8)), "GIF"), "numbers colours anew"),
        (encode(palette_image(IDS, [(0, 0, 0), (2, 2, 2), (1, 1, 1)]), "PNG"), "numbers colours anew"),
        (encode(palette_image(IDS, COLOURS), "GIF"), "numbers colours anew"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_not_saved_as_ids_is_refused(data: bytes, said: str) -> None:
    assert said in refusal(READER, data)


def test_avif_is_refused() -> None:
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow does not write AVIF")
    assert "is a AVIF" in refusal(READER, encode(Image.fromarray(IDS), "AVIF"))


def test_the_remedy_for_equal_channels(tmp_path: Path) -> None:
    path = tmp_path / "x.webp"
    path.write_bytes(encode(Image.fromarray(IDS), "WEBP", lossless=True))
    assert "`Image.open(path).getchannel(0).save('x.png')`" in refusal(READER, path.read_bytes())
    Image.open(path).getchannel(0).save(tmp_path / "x.png")
    np.testing.assert_array_equal(READER(tmp_path / "x.png"), IDS)


@pytest.mark.parametrize("ignore_index", [None, -100, 1, 300])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, ">u2"])
def test_ids_of_classes_alone_are_taken_as_they_are(ignore_index: int | None, kind: type) -> None:
    reader = MaskReader.of(named_classes(["sky", "road", "car"], ignore_index))
    ids = reader.check(IDS.astype(kind), "MASK")
    np.testing.assert_array_equal(ids, IDS)
    assert ids.dtype == {None: np.uint8, -100: np.int32, 1: np.uint8, 300: np.uint16}[ignore_index]


def test_the_remedy_for_greys_under_other_indices(tmp_path: Path) -> None:
    ids = np.where(IDS == 1, 0, IDS).astype(np.uint8)
    data = encode(Image.fromarray(ids), "GIF")
    assert "Image.open(path).convert('L').save('x.png')" in refusal(READER, data)
    Image.open(BytesIO(data)).convert("L").save(tmp_path / "x.png")
    np.testing.assert_array_equal(READER(tmp_path / "x.png"), ids)


def test_the_doctor_says_the_same(tmp_path: Path) -> None:
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        for index in range(count):
            for folder in ("images", "masks"):
                (tmp_path / folder / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.arange(30, dtype=np.uint8).reshape(2, 5, 3) + index).save(
                tmp_path / "images" / split / f"{index}.png"
            )
            (tmp_path / "masks" / split / f"{index}.tif").write_bytes(tiff(IDS.tobytes(), 8, photometric=0))
    (tmp_path / "classes.txt").write_text("\n".join(LABELS.names))
    source = find_source(DataConfig(name="folder", root=tmp_path), tmp_path)
    for number_of_bad in (4, 1):
        findings = check_source(source).errors
        assert len(findings) == number_of_bad
        assert all("Save it as PNG" in finding.what and "as it is said" in finding.remedy for finding in findings)
        for pair in source.splits["train"] + source.splits["validation"]:
            pair.mask.write_bytes(tiff(IDS.tobytes(), 8))


# --- palettes beside the colours of a class file


def test_a_palette_of_the_class_files_colours() -> None:
    np.testing.assert_array_equal(COLOURED.from_bytes(encode(palette_image(IDS, COLOURS), "PNG"), "MASK"), IDS)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_in_another_order_is_read_by_its_colours(kind: str) -> None:
    order = [2, 0, 1]  # index -> class
    data = encode(palette_image(IDS, [COLOURS[id_] for id_ in order]), kind)
    np.testing.assert_array_equal(COLOURED.from_bytes(data, "MASK"), np.array(order)[IDS])


def test_a_palette_of_other_colours_is_refused() -> None:
    data = encode(palette_image(IDS, [COLOURS[0], COLOURS[1], (0, 0, 77)]), "PNG")
    message = refusal(COLOURED, data)
    assert "the nearest known colour is (10, 20, 30)" in message
    assert "if the values are ids, take the colours out of the class file" in message
    np.testing.assert_array_equal(READER.from_bytes(data, "MASK"), IDS)  # that remedy


def test_void_may_have_any_colour_and_a_grey_ramp_says_nothing() -> None:
    ids = IDS.copy()
    ids[0, 0] = 255
    palette = np.zeros((256, 3), np.uint8)
    palette[:3], palette[255] = COLOURS, (224, 224, 192)
    np.testing.assert_array_equal(COLOURED.from_bytes(encode(palette_image(ids, palette), "PNG"), "MASK"), ids)
    ramp = np.repeat(np.arange(256)[:, None], 3, axis=1)
    np.testing.assert_array_equal(COLOURED.from_bytes(encode(palette_image(ids, ramp), "PNG"), "MASK"), ids)


def test_a_palette_with_its_colours_is_not_taken_for_greys() -> None:
    reader = MaskReader(LABELS, tuple(((grey,) * 3, id_) for id_, grey in enumerate((0, 128, 255))))
    data = encode(palette_image(IDS, [(0, 0, 0), (128, 128, 128), (255, 255, 255)]), "PNG")
    np.testing.assert_array_equal(reader.from_bytes(data, "MASK"), IDS)
    np.testing.assert_array_equal(reader.check(np.array([0, 128, 255])[IDS], "MASK"), IDS)


# --- greys: the lines that a refusal offers are followed


def follow(message: str, path: Path) -> MaskReader:
    """A reader by the class file that the message tells to write."""
    path.write_text("\n".join(re.findall(r"`([^`]* \d+ \d+ \d+)`", message)))
    return MaskReader.of(read_class_table(path))


def test_black_and_white_masks_of_two_classes(tmp_path: Path) -> None:
    reader = MaskReader(LabelSet(["sky", "tree house"]))
    values = np.array([0, 255], np.uint8)[IDS // 2]
    message = refusal(reader, encode(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(follow(message, tmp_path / "classes.txt").check(values, "MASK"), IDS // 2)
    assert "set data.ignore_index=255" in message
    np.testing.assert_array_equal(MaskReader(reader.labels, void=(255,)).check(values, "MASK"), values)


def test_greys_of_three_classes(tmp_path: Path) -> None:
    values = np.array([0, 128, 255], np.uint8)[IDS]
    message = refusal(READER, encode(Image.fromarray(values), "PNG"))
    assert "If the values are greys of the classes" in message
    reader = follow(message, tmp_path / "greys.txt")
    np.testing.assert_array_equal(reader.from_bytes(encode(Image.fromarray(values), "PNG"), "MASK"), IDS)
    np.testing.assert_array_equal(reader.from_bytes(encode(Image.fromarray(values), "BMP"), "MASK"), IDS)
    with_void = refusal(MaskReader(LabelSet(["sky", "road"])), encode(Image.fromarray(values), "PNG"))
    lines = re.findall(r"`([^`]* \d+ \d+ \d+)`", with_void)
    (tmp_path / "void.txt").write_text("\n".join(lines))  # 128 is unlabelled there
    reader = MaskReader.of(read_class_table(tmp_path / "void.txt"))
    np.testing.assert_array_equal(reader.check(values, "MASK"), np.array([0, 255, 1])[IDS])


def test_an_unknown_id_names_the_keys_that_may_be_meant() -> None:
    four = np.where(IDS == 1, 4, IDS)
    assert "If 4 is unlabelled, set data.ignore_index=4. If it is a class" in refusal(
        READER, encode(Image.fromarray(four), "PNG")
    )
    three = refusal(READER, encode(Image.fromarray(np.where(IDS == 0, 255, 3).astype(np.uint8)), "PNG"))
    assert "set data.reduce_labels=true" in three
    assert "set data.ignore_index=3 and list `255 unlabelled`" in three
    reader = MaskReader(LabelSet(LABELS.names, ignore_index=4))
    np.testing.assert_array_equal(reader.check(four, "MASK"), four)
    with pytest.raises(UserError, match="list it in the class file"):
        reader.check(np.where(IDS == 1, 255, four), "MASK")
    with pytest.raises(UserError, match="If 9 is unlabelled too, change it to 4"):
        reader.check(np.where(IDS == 1, 9, four), "MASK")


@pytest.mark.parametrize(
    ("num_labels", "ignore_index", "kind"),
    [(3, 255, np.uint8), (3, 4, np.uint8), (3, -100, np.int32), (3, 65535, np.uint16), (300, 65535, np.uint16)],
)
def test_the_smallest_type_that_holds_all(num_labels: int, ignore_index: int, kind: type) -> None:
    reader = MaskReader(LabelSet([f"class {index}" for index in range(num_labels)], ignore_index))
    values = IDS.astype(np.int64)
    values[0, 0] = ignore_index
    ids = reader.check(values, "MASK")
    assert ids.dtype == kind
    np.testing.assert_array_equal(ids, values)
