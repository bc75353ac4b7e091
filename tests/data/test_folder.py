import io
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hfseg import DataConfig, UserError, load_dataset
from hfseg.data import find_source
from tests.builders import FOLDER_CLASSES, draw_ids, make_folder, save_8_bit

COLOURS = [(0, 0, 0), (64, 0, 0), (64, 0, 128), (128, 128, 0)]


def config(root: Path, **options: object) -> DataConfig:
    return DataConfig(name="folder", root=root, **options)


def load(root: Path, **options: object) -> datasets.DatasetDict:
    return load_dataset(config(root, **options))[0]


def complaint(root: Path, **options: object) -> str:
    with pytest.raises(UserError) as error:
        load(root, **options)
    return str(error.value)


def assert_same(data: datasets.DatasetDict, truth: dict[str, NDArray[np.uint16]]) -> None:
    """Every sample once, and every pixel as it was written."""
    rows = {row["name"]: row for split in ("train", "validation", "test") for row in data[split]}
    assert sorted(rows) == sorted(truth)
    assert sum(len(rows) for rows in data.values()) == len(truth)
    for name, ids in truth.items():
        label = np.asarray(rows[name]["label"])
        assert label.dtype in (np.uint8, np.uint16)
        np.testing.assert_array_equal(label, ids)
        assert rows[name]["image"].mode == "RGB"
        assert rows[name]["image"].size == (ids.shape[1], ids.shape[0])


# --- kinds of masks


def save_palette(path: Path, ids: NDArray[np.uint16]) -> None:
    image = Image.new("P", ids.shape[::-1])
    image.putdata(ids.ravel().tolist())
    image.putpalette([channel for k in range(256) for channel in (255 - k, k * 7 % 256, 80)])
    image.save(path)


def save_small_palette(path: Path, ids: NDArray[np.uint16]) -> None:
    image = Image.new("P", ids.shape[::-1])
    image.putdata(ids.ravel().tolist())
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    image.save(path, bits=2)


def save_16_bit(path: Path, ids: NDArray[np.uint16]) -> None:
    Image.fromarray(ids).save(path)


def save_32_bit(path: Path, ids: NDArray[np.uint16]) -> None:
    Image.fromarray(ids.astype(np.int32)).save(path)


def save_grey_and_alpha(path: Path, ids: NDArray[np.uint16]) -> None:
    Image.merge("LA", (Image.fromarray(ids.astype(np.uint8)), Image.new("L", ids.shape[::-1], 255))).save(path)


def save_few_bits(depth: int) -> Callable[[Path, NDArray[np.uint16]], None]:
    """A grey PNG of 2 or 4 bits as optimisers make them, written by hand: Pillow writes none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def save(path: Path, ids: NDArray[np.uint16]) -> None:
        height, width = ids.shape
        bits = (ids[..., None] >> np.arange(depth - 1, -1, -1) & 1).reshape(height, -1).astype(np.uint8)
        rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
        header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))

    return save


@pytest.mark.parametrize(
    ("save", "suffix", "void"),
    [
        (save_8_bit, ".png", 255),
        (save_8_bit, ".PNG", 255),
        (save_8_bit, ".tif", 255),
        (save_8_bit, ".bmp", 255),
        (save_palette, ".png", 255),
        (save_small_palette, ".png", None),
        (save_16_bit, ".png", 255),
        (save_16_bit, ".tiff", 255),
        (save_32_bit, ".tif", 255),
        (save_grey_and_alpha, ".png", 255),
        (save_few_bits(2), ".png", None),
        (save_few_bits(4), ".png", None),
    ],
)
def test_ids_pixel_by_pixel(tmp_path: Path, save: Callable, suffix: str, void: int | None) -> None:
    truth = make_folder(tmp_path, save, suffix=suffix, void=void)
    data, labels = load_dataset(config(tmp_path))
    assert (list(labels.names), labels.ignore_index) == (FOLDER_CLASSES, 255)
    assert_same(data, truth)


def test_more_than_255_classes_need_16_bits(tmp_path: Path) -> None:
    truth = make_folder(tmp_path, save_16_bit, num_classes=300, void=65535)
    (tmp_path / "classes.txt").write_text("".join(f"class {k}\n" for k in range(300)))
    data, labels = load_dataset(config(tmp_path))
    assert (labels.num_labels, labels.ignore_index) == (300, 65535)
    assert_same(data, truth)
    assert max(int(ids[ids != 65535].max()) for ids in truth.values()) == 299


def write_colour_table(root: Path, colours: list[tuple[int, int, int]], names: list[str], void: bool = True) -> None:
    (root / "classes.txt").unlink()
    table: list[dict] = [
        {"name": name, "id": k, "color": colour} for k, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    table += [{"name": "void", "id": 255, "color": (224, 224, 192)}] if void else []
    (root / "classes.json").write_text(json.dumps(table[::-1]))


@pytest.mark.parametrize("alpha", [False, True])
def test_colours(tmp_path: Path, alpha: bool) -> None:
    def save_rgb(path: Path, ids: NDArray[np.uint16]) -> None:
        pixels = np.zeros((*ids.shape, 3), np.uint8)
        for y, x in np.ndindex(*ids.shape):
            pixels[y, x] = (224, 224, 192) if ids[y, x] == 255 else COLOURS[ids[y, x]]
        image = Image.fromarray(pixels)
        (image.convert("RGBA") if alpha else image).save(path)

    truth = make_folder(tmp_path, save_rgb)
    write_colour_table(tmp_path, COLOURS, FOLDER_CLASSES)
    data, labels = load_dataset(config(tmp_path))
    assert tuple(labels.palette or ()) == tuple(COLOURS)
    assert_same(data, truth)


def test_binary_masks(tmp_path: Path) -> None:
    def save_bits(path: Path, ids: NDArray[np.uint16]) -> None:
        Image.fromarray(ids.astype(bool)).save(path)

    def save_black_and_white(path: Path, ids: NDArray[np.uint16]) -> None:
        Image.fromarray((ids * 255).astype(np.uint8)).save(path)

    truth = make_folder(tmp_path, save_bits, num_classes=2, void=None)
    assert Image.open(tmp_path / "masks/train/00.png").mode == "1"
    (tmp_path / "classes.txt").write_text("out\nin\n")
    assert_same(load(tmp_path), truth)
    make_folder(tmp_path, save_black_and_white, num_classes=2, void=None)
    (tmp_path / "classes.txt").write_text("out\nin\n")
    assert "has 255 but no 1" in complaint(tmp_path)
    write_colour_table(tmp_path, [(0, 0, 0), (255, 255, 255)], ["out", "in"], void=False)  # the first remedy
    assert_same(load(tmp_path), truth)
    (tmp_path / "classes.json").unlink()
    (tmp_path / "classes.txt").write_text("0 out\n1 in\n255 unlabelled\n")  # the second
    assert_same(load(tmp_path), {name: ids * 255 for name, ids in truth.items()})
    void = load(tmp_path, classes=("out", "in"), ignore_index=255)  # the same in the config
    assert_same(void, {name: ids * 255 for name, ids in truth.items()})
    (tmp_path / "classes.txt").write_text("in\n")  # one class is no better, and its remedy works as well
    lines = re.findall(r"`([^`]* \d+ \d+ \d+)`", complaint(tmp_path))
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    data, labels = load_dataset(config(tmp_path))
    assert labels.names == ("background", "in")
    assert_same(data, truth)


def test_reduced_labels(tmp_path: Path) -> None:
    truth = make_folder(tmp_path, num_classes=5)
    said = complaint(tmp_path)
    assert "values [4]" in said
    assert "set data.reduce_labels=true" in said
    reduced = {name: np.where((ids == 0) | (ids == 255), 255, ids - 1) for name, ids in truth.items()}
    assert_same(load(tmp_path, reduce_labels=True), reduced)


# --- layouts


def names(data: datasets.DatasetDict) -> dict[str, list[str]]:
    return {split: list(rows["name"]) for split, rows in data.items()}


def test_val_is_the_test_and_a_part_of_train_is_held_out(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"training": 20, "Validation": 3})
    found = names(load(tmp_path))
    assert found["test"] == ["Validation/00", "Validation/01", "Validation/02"]
    assert len(found["validation"]) == 2
    assert sorted(found["train"] + found["validation"]) == [f"training/{k:02d}" for k in range(20)]


def test_three_splits_stay_as_they_are(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 3, "val": 2, "test": 4})
    assert {split: len(rows) for split, rows in names(load(tmp_path)).items()} == {
        "train": 3, "validation": 2, "test": 4,
    }  # fmt: skip


def test_a_test_without_masks_is_to_predict(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train": 4, "val": 2, "test": 3})
    shutil.rmtree(tmp_path / "masks" / "test")
    data = load(tmp_path)
    assert names(data)["predict"] == ["test/00", "test/01", "test/02"]
    assert data["predict"][0]["label"] is None
    assert names(data)["test"] == ["val/00", "val/01"]


def test_without_split_folders_two_tenths_are_held_out(tmp_path: Path) -> None:
    truth = make_folder(tmp_path, counts={"": 30})
    data = load(tmp_path)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 24, "validation": 3, "test": 3}
    assert_same(data, truth)
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    assert names(load(tmp_path / "elsewhere")) == names(data)


def test_folders_within_and_another_name_for_masks(tmp_path: Path) -> None:
    truth = make_folder(tmp_path, counts={"train/rome": 3, "train/oslo": 3, "val/rome": 2})
    (tmp_path / "masks").rename(tmp_path / "annotations")
    assert_same(load(tmp_path), truth)


@pytest.mark.parametrize("beside", [False, True])
def test_mask_suffix(tmp_path: Path, beside: bool) -> None:
    truth = make_folder(tmp_path, suffix="_mask.png")
    save_8_bit(tmp_path / "masks" / "train" / "00_preview.png", truth["train/00"])
    if beside:
        (tmp_path / "masks" / "train" / "00_preview.png").unlink()
        shutil.copytree(tmp_path / "masks", tmp_path / "images", dirs_exist_ok=True)
        shutil.rmtree(tmp_path / "masks")
    assert_same(load(tmp_path, mask_suffix="_mask"), truth)


def test_what_else_lies_about(tmp_path: Path) -> None:
    truth = make_folder(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder / "train" / "._00.png").write_bytes(b"\0\5\26\7")
        (tmp_path / folder / "train" / ".hidden.jpg").write_text("x")
        (tmp_path / folder / "train" / "Thumbs.db").write_text("x")
        (tmp_path / folder / "train" / "notes.txt").write_text("x")
        (tmp_path / folder / ".cache").mkdir()
        (tmp_path / folder / ".cache" / "a.png").write_text("x")
        (tmp_path / folder / "desktop.ini").write_text("x")
    (tmp_path / "images" / "train" / "00.jpg").rename(tmp_path / "images" / "train" / "00.JPEG")
    assert_same(load(tmp_path), truth)
    extra = tmp_path / "masks" / "val" / "unused.png"
    save_8_bit(extra, draw_ids(0))
    assert_same(load(tmp_path), truth)
    assert find_source(config(tmp_path), tmp_path).unpaired == [extra]


# --- class files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "sky\n\n tree house \n3 wheeler\n"),
        ("classes.txt", "2 3 wheeler\n0: sky\n1, tree house\n"),
        ("classes.json", '["sky", "tree house", "3 wheeler"]'),
        ("id2label.json", '{"0": "sky", "1": "tree house", "2": "3 wheeler"}'),
        ("classes.yaml", "- sky\n- tree house\n- 3 wheeler\n"),
        ("classes.yml", "{2: 3 wheeler, 1: tree house, 0: sky, 255: void}"),
        (
            "classes.json",
            '[{"id": 1, "name": "tree house"}, {"id": 0, "name": "sky"}, {"id": 2, "name": "3 wheeler"}]',
        ),
    ],
)
def test_class_files(tmp_path: Path, name: str, text: str) -> None:
    make_folder(tmp_path, num_classes=3)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert list(load_dataset(config(tmp_path))[1].names) == ["sky", "tree house", "3 wheeler"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.txt", "\n", "names no class"),
        ("classes.txt", "cat\ncat\n", "'cat' is the name of more than one class"),
        ("classes.txt", "0 cat\n2 dog\n", "the ids are [0, 2], but must be 0..1"),
        ("classes.txt", "0 cat\n0 dog\n", "id 0 is given to more than one class"),
        ("classes.json", "[", "is not valid JSON"),
        ("classes.json", "3", "Input should be a valid list"),
        ("classes.json", '{"zero": "cat"}', "got 'zero'"),
        ("classes.yaml", "- cat\n- true\n", "quote names such as '1'"),
        ("classes.json", '[{"name": "a", "color": [0, 0, 256]}]', "less than or equal to 255"),
        ("classes.json", '[{"name": "a", "color": [0, 0, 2]}, {"name": "b"}]', "'b' has no color"),
        ("classes.json", '[{"name": "a", "id": 0}, {"name": "b"}]', "'b' has no id"),
        (
            "classes.json",
            '[{"name": "a", "color": [0, 0, 2]}, {"name": "b", "color": [0, 0, 2]}]',
            "(0, 0, 2) is the colour of more than one class",
        ),
    ],
)
def test_bad_class_files(tmp_path: Path, name: str, text: str, said: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / name).write_text(text)
    message = complaint(tmp_path)
    assert said in message
    assert str(tmp_path / name) in message


def test_chosen_class_file(tmp_path: Path) -> None:
    make_folder(tmp_path)
    other = tmp_path / "elsewhere" / "names.json"
    other.parent.mkdir()
    other.write_text(json.dumps(["a", "b", "c", "d"]))
    (tmp_path / "classes.json").write_text("[]")
    assert "classes.json names no class" in complaint(tmp_path)
    assert "set data.classes to it" in complaint(tmp_path)
    assert load_dataset(config(tmp_path, classes="classes.txt"))[1].names == tuple(FOLDER_CLASSES)
    assert load_dataset(config(tmp_path, classes=other))[1].names == ("a", "b", "c", "d")
    assert "no class file nowhere.txt" in complaint(tmp_path, classes="nowhere.txt")
    assert load_dataset(config(tmp_path, classes=("a", "b", "c", "d")))[1].names == ("a", "b", "c", "d")
    assert "'a' is the name of more than one class" in complaint(tmp_path, classes=("a", "b", "a", "d"))


# --- damage


def rewrite(path: Path, change: Callable[[NDArray[np.uint8]], object]) -> None:
    values = np.array(Image.open(path))
    change(values)
    Image.fromarray(values).save(path)


def damage_no_images(root: Path, mask: Path) -> str:
    for path in (root / "images" / "val").iterdir():
        path.unlink()
    return "images/val holds no image"


def damage_no_image_folder(root: Path, mask: Path) -> str:
    shutil.rmtree(root / "images")
    return "has no images/"


def damage_no_mask_folder(root: Path, mask: Path) -> str:
    shutil.rmtree(root / "masks")
    return "has no masks/"


def damage_two_mask_folders(root: Path, mask: Path) -> str:
    (root / "labels").mkdir()
    return "holds masks and labels"


def damage_no_class_file(root: Path, mask: Path) -> str:
    (root / "classes.txt").unlink()
    return "no class file classes.txt or"


def damage_missing_mask(root: Path, mask: Path) -> str:
    mask.unlink()
    assert find_source(config(root), root).unpaired == [root / "images/train/00.jpg"]
    return f"1 of 6 images have no mask of the same name, such as {root}/images/train/00.jpg"


def damage_id(root: Path, mask: Path) -> str:
    rewrite(mask, lambda values: values.__setitem__((2, 3), 17))
    return f"{mask} has the values [17] in 1 pixels, but the class file has 4 classes"


def damage_jpeg(root: Path, mask: Path) -> str:
    Image.open(mask).save(mask.with_suffix(".jpg"))
    mask.unlink()
    return f"{mask.with_suffix('.jpg')} is a JPEG"


def damage_jpeg_inside(root: Path, mask: Path) -> str:
    Image.open(mask).save(mask, format="JPEG")
    return f"{mask} is a JPEG"


def damage_same_stem(root: Path, mask: Path) -> str:
    shutil.copy(root / "images/train/00.jpg", root / "images/train/00.PNG")
    return "have the same name"


def damage_two_masks(root: Path, mask: Path) -> str:
    Image.open(mask).save(mask.with_suffix(".tif"))
    return "00.tif have the same name"


def damage_same_split(root: Path, mask: Path) -> str:
    shutil.copytree(root / "images/val", root / "images/validation")
    return "which both mean the validation split"


def damage_no_train(root: Path, mask: Path) -> str:
    shutil.rmtree(root / "images/train")
    return "has no train split (found: validation)"


def damage_outside(root: Path, mask: Path) -> str:
    shutil.copytree(root / "images/val", root / "images/extra")
    return "2 images lie elsewhere in it, such as"


def damage_grey_rgb(root: Path, mask: Path) -> str:
    Image.open(mask).convert("RGB").save(mask)
    return f"{mask} is RGB with three equal channels"


def damage_rgb(root: Path, mask: Path) -> str:
    Image.new("RGB", Image.open(mask).size, (1, 2, 3)).save(mask)
    return f"{mask} is RGB, but the class file has no colours"


def damage_transparent(root: Path, mask: Path) -> str:
    image = Image.open(mask)
    alpha = Image.new("L", image.size, 255)
    alpha.putpixel((0, 0), 0)
    Image.merge("LA", (image, alpha)).save(mask)
    return f"{mask} is partly transparent"


def damage_float(root: Path, mask: Path) -> str:
    Image.open(mask).convert("F").save(mask.with_suffix(".tif"))
    mask.unlink()
    return "holds floating-point numbers"


def damage_size(root: Path, mask: Path) -> str:
    Image.open(mask).resize((8, 9)).save(mask)
    return "8x9"


def damage_truncated(root: Path, mask: Path) -> str:
    mask.write_bytes(mask.read_bytes()[:-30])
    return f"{mask} cannot be read"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_repair_is_noticed(tmp_path: Path, damage: Callable[[Path, Path], str]) -> None:
    root, healthy = (tmp_path / "data").resolve(), tmp_path / "healthy"
    truth = make_folder(root)
    shutil.copytree(root, healthy)
    assert_same(load(root), truth)  # a cache of the healthy folder exists, and must not be used
    said = damage(root, root / "masks" / "train" / "00.png")
    message = complaint(root)
    assert said in message
    assert str(root) in message
    shutil.rmtree(root)
    shutil.copytree(healthy, root)
    assert_same(load(root), truth)


def test_unknown_colour_is_named_with_the_nearest(tmp_path: Path) -> None:
    def save_rgb(path: Path, ids: NDArray[np.uint16]) -> None:
        Image.fromarray(np.array(COLOURS, np.uint8)[ids]).save(path)

    make_folder(tmp_path, save_rgb, void=None)
    write_colour_table(tmp_path, COLOURS, FOLDER_CLASSES)
    mask = tmp_path / "masks" / "train" / "02.png"

    def change(values: NDArray[np.uint8]) -> None:
        values[2, 3:6] = (66, 1, 126)
        values[4, 3] = (9, 9, 9)

    rewrite(mask, change)
    said = complaint(tmp_path)
    assert f"{mask}: 4 pixels have 2 colours" in said
    assert "(66, 1, 126), fills 3 pixels; the nearest known colour is (64, 0, 128)" in said
    assert "data.reduce_labels is for ids. Remove it" in complaint(tmp_path, reduce_labels=True)


def test_a_changed_mask_or_class_file_is_read_again(tmp_path: Path) -> None:
    truth = make_folder(tmp_path)
    assert_same(load(tmp_path), truth)
    path = tmp_path / "masks" / "val" / "01.png"
    before = path.stat()
    truth["val/01"][0, 0] = 3
    buffer = io.BytesIO()
    Image.fromarray(truth["val/01"].astype(np.uint8)).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    assert_same(load(tmp_path), truth)
    (tmp_path / "classes.txt").write_text("\n".join(FOLDER_CLASSES[:3]) + "\n")
    assert "has 3 classes" in complaint(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join([*FOLDER_CLASSES[:3], "plane"]) + "\n")
    assert load_dataset(config(tmp_path))[1].names == (*FOLDER_CLASSES[:3], "plane")


def test_keys_of_other_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`reduce_labels` is for folder and hub: it means nothing for oxford_pet"):
        DataConfig(name="oxford_pet", reduce_labels=True)
    with pytest.raises(ValueError, match="`streaming` is for hub"):
        config(tmp_path, streaming=True)
    with pytest.raises(UserError, match=r"data\.root=None is not a folder"):
        load_dataset(DataConfig(name="folder"))


def test_camvid_if_present() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "camvid"
    if not root.is_dir():
        pytest.skip("CamVid is not on this machine")
    source = find_source(config(root), root)
    assert {split: len(pairs) for split, pairs in source.splits.items()} == {
        "train": 330, "validation": 37, "test": 101,
    }  # fmt: skip
    assert not source.unpaired
    for pair in source.splits["test"][::10]:
        assert pair.mask is not None
        np.testing.assert_array_equal(source.read_ids(pair.mask), np.array(Image.open(pair.mask)))
    assert source.labels.num_labels == 11


def test_files_behind_links_count_and_broken_links_are_named(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for kind in ("images", "masks"):
        (tmp_path / "elsewhere" / kind).mkdir(parents=True)
        (root / kind).mkdir(parents=True)
        (root / kind / "linked").symlink_to(tmp_path / "elsewhere" / kind)
        (root / kind / "loop").symlink_to(root / kind)
    for index in range(12):
        part = root if index % 2 else tmp_path / "elsewhere"
        pixels = np.random.default_rng(index).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(part / "images" / f"x{index}.png")
        Image.fromarray(pixels[..., 0] % 2).save(part / "masks" / f"x{index}.png")
    (root / "classes.txt").write_text("a\nb\n")
    data, _ = load_dataset(DataConfig(name="folder", root=root))
    assert sum(map(len, data.values())) == 12
    (root / "images" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(UserError, match=r"gone\.png is a link to a file that is not there"):
        load_dataset(DataConfig(name="folder", root=root))


def test_deep_images_are_refused(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index in range(12):
        Image.fromarray(np.full((40, 40), 5000 * index, np.uint16)).save(tmp_path / "images" / f"{index}.png")
        Image.fromarray(np.full((40, 40), index % 2, np.uint8)).save(tmp_path / "masks" / f"{index}.png")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"all above 255 is white.*Convert"):
        load_dataset(DataConfig(name="folder", root=tmp_path))


def test_folders_that_seem_to_be_splits_are_not_taken_together(tmp_path: Path) -> None:
    make_folder(tmp_path, counts={"train2017": 4, "val2017": 4})
    message = complaint(tmp_path)
    assert "'train2017' and 'val2017' seem to be of several splits" in message
    assert "Rename them" in message
    for folder in ("images", "masks"):
        (tmp_path / folder / "train2017").rename(tmp_path / folder / "train")
        (tmp_path / folder / "val2017").rename(tmp_path / folder / "val")
    assert [row["name"] for row in load(tmp_path)["test"]] == [f"val/{index:02d}" for index in range(4)]


def test_folders_of_one_word_are_one_set(tmp_path: Path) -> None:
    truth = make_folder(tmp_path, counts={"test_track": 6, "old town": 6})
    assert_same(load(tmp_path), truth)
