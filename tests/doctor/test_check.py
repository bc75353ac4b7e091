import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from hfseg import DataConfig, LabelSet, RunConfig, UserError, load_dataset, run
from hfseg.data import Pair, Source
from hfseg.data.oxford_pet import read_list
from hfseg.doctor import Finding, Report, check_data, check_rows, check_source
from hfseg.doctor.check import QUICK_SAMPLES
from hfseg.doctor.contact_sheet import plot_contact_sheet
from hfseg.doctor.diagnosis import VOC_GREYS
from tests.conftest import REPOSITORY

LABELS = LabelSet(["road", "tree", "sky"])
SIZES = {"train": 6, "validation": 3, "test": 3}


@dataclass(frozen=True)
class IdReader:
    """Ids as they are stored; takes any integer, as a reader of plain ids may."""

    def __call__(self, path: Path) -> NDArray[np.integer]:
        values = np.asarray(Image.open(path))
        if values.ndim != 2:
            raise UserError(f"{path} has {values.shape[-1]} channels, not one.")
        return values


@dataclass(frozen=True)
class GreyReader:
    """The usual mistake with palette masks."""

    def __call__(self, path: Path) -> NDArray[np.integer]:
        return np.asarray(Image.open(path).convert("L"))


def write_sample(root: Path, split: str, index: int) -> Pair:
    """A random picture, unlike all others, and a mask with all three classes and some ignored pixels."""
    rng = np.random.default_rng([index, *split.encode()])
    pair = Pair(f"{split}_{index}", root / f"images/{split}_{index}.jpg", root / f"masks/{split}_{index}.png")
    pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(pair.image, quality=95)
    ids = np.kron(rng.permutation([0, 1, 2, 0, 1, 2]).reshape(2, 3), np.ones((24, 22))).astype(np.uint8)[:, :64]
    ids[20:23, 5:9] = 255
    Image.fromarray(ids).save(pair.mask)
    return pair


@pytest.fixture
def source(tmp_path: Path) -> Source:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    splits = {split: [write_sample(tmp_path, split, index) for index in range(n)] for split, n in SIZES.items()}
    return Source("drawn", tmp_path, LABELS, splits, IdReader())


def all_pairs(source: Source) -> list[Pair]:
    return [pair for pairs in source.splits.values() for pair in pairs]


def change(path: Path, edit: Callable[[NDArray[np.uint8]], NDArray[np.generic]]) -> None:
    Image.fromarray(edit(np.array(Image.open(path)))).save(path)


def change_all(source: Source, edit: Callable[[NDArray[np.uint8]], NDArray[np.generic]]) -> None:
    for pair in all_pairs(source):
        change(pair.mask, edit)


def test_a_clean_set_gives_no_finding_and_the_true_shares(source: Source) -> None:
    report = check_source(source)
    assert report.findings == []
    assert report.num_checked == sum(SIZES.values())
    for split, pairs in source.splits.items():
        masks = np.stack([np.array(Image.open(pair.mask)) for pair in pairs])
        expected = [int((masks == value).sum()) for value in (0, 1, 2, 255)]
        assert report.pixels[split].tolist() == expected
        assert report.images[split].tolist() == [len(pairs)] * 4
        assert report.shares(split)[:3] == pytest.approx(np.divide(expected[:3], sum(expected[:3])))
        assert report.shares(split)[3] == pytest.approx(expected[3] / masks.size)


def test_the_drawn_pets_give_no_finding(pets: Path) -> None:
    for quick in (False, True):
        assert check_data(DataConfig(name="oxford_pet", root=pets), quick).findings == []


# Each plants one fault and returns what the doctor must say: severity, fault, file, and parts of `what` and `remedy`.
Said = tuple[str, str, Path | None, str, str]


def plant_truncated_image(source: Source) -> Said:
    path = source.splits["train"][2].image
    path.write_bytes(path.read_bytes()[:-100])
    return "error", "unreadable", path, "truncated", "Restore"


def plant_truncated_mask(source: Source) -> Said:
    path = source.splits["test"][1].mask
    path.write_bytes(path.read_bytes()[:-30])
    return "error", "unreadable", path, "mask cannot be read", "Restore"


def plant_web_page(source: Source) -> Said:
    path = source.splits["train"][0].image
    path.write_text("<html>404</html>")
    return "error", "unreadable", path, "cannot be read as an image", "Restore"


def plant_missing_mask(source: Source) -> Said:
    path = source.splits["validation"][1].mask
    path.unlink()
    return "error", "missing-file", path, "mask is missing", "Restore"


def plant_missing_image(source: Source) -> Said:
    path = source.splits["train"][1].image
    path.unlink()
    return "error", "missing-file", path, "image is missing", "Restore"


def plant_size(source: Source) -> Said:
    path = source.splits["train"][3].mask
    Image.open(path).resize((32, 24), Image.Resampling.NEAREST).save(path)
    return "error", "size-mismatch", path, "the mask is 32x24 pixels, but its image", "nearest neighbour"


def turn(path: Path, orientation: int) -> None:
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def plant_exif(source: Source) -> Said:
    pair = source.splits["train"][3]
    turn(pair.image, 6)  # and the mask still lies over the pixels as stored
    return "error", "exif-orientation", pair.mask, "orientation is 6 in the image and 1 in the mask", "upright"


def plant_exif_half_turn(source: Source) -> Said:
    pair = source.splits["train"][3]
    turn(pair.image, 3)
    return "warning", "exif-unsure", pair.mask, "sizes cannot tell", "Look at both"


def plant_id_outside(source: Source) -> Said:
    path = source.splits["train"][4].mask

    def edit(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        ids[2:4, 3:8] = 17
        ids[30, 30] = 18
        return ids

    change(path, edit)
    return "error", "ids-outside", path, "17 (10 px), 18 (1 px) are no class: these are 0..2", "class list"


def plant_unlisted_class(source: Source) -> Said:
    path = source.splits["train"][4].mask
    change(path, lambda ids: np.where(ids == 2, 3, ids).astype(np.uint8))
    return "error", "ids-outside", path, "3 (", "set data.ignore_index=3 and list `255 unlabelled`"


def plant_off_by_one(source: Source) -> Said:
    change_all(source, lambda ids: np.where(ids < 3, ids + 1, ids).astype(np.uint8))
    return "error", "off-by-one", source.splits["train"][0].mask, "3 (", "data.reduce_labels=true"


def plant_rgb_mask(source: Source) -> Said:
    path = source.splits["train"][5].mask
    Image.open(path).convert("RGB").save(path)
    return "error", "colour-mask", path, "3 channels", "colour of each class"


def plant_voc_greys(source: Source) -> Said:
    change_all(source, lambda ids: np.array([0, 38, 75], np.uint8)[ids % 3])
    return "error", "grey-mask", source.splits["test"][2].mask, "38 (", "PASCAL VOC"


def plant_greys(source: Source) -> Said:
    change_all(source, lambda ids: np.array([0, 127, 254], np.uint8)[ids % 3])
    return "error", "grey-mask", source.splits["test"][2].mask, "127 (", "made to be looked at"


def plant_black_and_white(source: Source) -> Said:
    change_all(source, lambda ids: np.where(ids == 2, 255, 0).astype(np.uint8))
    return "error", "grey-mask", source.splits["train"][0].mask, "only 0 and 255 occur", "255 does not count"


def plant_smooth_mask(source: Source) -> Said:
    path = source.splits["validation"][0].mask
    small = Image.open(path).resize((24, 18), Image.Resampling.NEAREST)
    small.resize((64, 48), Image.Resampling.BILINEAR).save(path)
    return "error", "interpolated-mask", path, "more", "nearest neighbour"


def plant_jpeg_mask(source: Source) -> Said:
    path = source.splits["train"][1].mask
    Image.open(path).save(path, format="JPEG")
    return "error", "lossy-mask", path, "are no class", "PNG"


def plant_another_palette(source: Source) -> Said:
    colours = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]
    for index, pair in enumerate(all_pairs(source)):
        mask = Image.open(pair.mask)
        palette = np.zeros((256, 3), np.uint8)
        palette[:3] = colours if index != 4 else colours[::-1]
        mask.putpalette(palette.ravel().tolist())
        mask.save(pair.mask)
    return "warning", "palette-differs", all_pairs(source)[4].mask, "index 0 has colour (0, 200, 0)", "one palette"


def plant_duplicate(source: Source) -> Said:
    path = source.splits["test"][1].image
    shutil.copy(source.splits["train"][2].image, path)
    return "warning", "duplicate-across-splits", path, "the same image in test and train", "one split only"


def plant_duplicate_in_split(source: Source) -> Said:
    path = source.splits["train"][1].image
    shutil.copy(source.splits["train"][2].image, path)
    return "warning", "duplicate", path, "the same image 2 times in train", "all but one"


def plant_near_duplicate(source: Source) -> Said:
    path = source.splits["validation"][2].image
    image = Image.open(source.splits["train"][0].image).resize((32, 24)).resize((64, 48))
    image.save(path, quality=60)
    return "warning", "near-duplicate-across-splits", path, "nearly the same image in train and validation", "Look"


def plant_flat_image(source: Source) -> Said:
    path = source.splits["train"][2].image
    Image.new("RGB", (64, 48), (10, 90, 10)).save(path)
    return "warning", "flat-image", path, "one colour only", "Leave the sample out"


def plant_tiny_image(source: Source) -> Said:
    pair = source.splits["train"][2]
    for path, resample in ((pair.image, Image.Resampling.BOX), (pair.mask, Image.Resampling.NEAREST)):
        Image.open(path).resize((16, 12), resample).save(path)
    return "warning", "tiny-image", pair.image, "16x12", "thumbnail"


def plant_16_bit_image(source: Source) -> Said:
    path = source.splits["train"][2].image
    Image.fromarray(np.array(Image.open(path).convert("L")).astype(np.uint16) * 200).save(path, format="PNG")
    return "error", "deep-image", path, "I;16 image with values", "8 bits"


def plant_grey_image(source: Source) -> Said:
    path = source.splits["train"][2].image
    Image.open(path).convert("L").save(path)
    return "warning", "image-mode", path, "1 images are L", "Nothing, if"


def plant_ignored_mask(source: Source) -> Said:
    path = source.splits["train"][2].mask
    change(path, lambda ids: np.full_like(ids, 255))
    return "warning", "ignored-mask", path, "all of the mask", "leave the sample out"


def plant_one_class_mask(source: Source) -> Said:
    path = source.splits["train"][2].mask
    change(path, np.zeros_like)
    return "warning", "one-class-mask", path, "'road'", "empty by mistake"


def plant_ignored_split(source: Source) -> Said:
    for pair in source.splits["test"]:
        change(pair.mask, lambda ids: np.where(np.arange(48)[:, None] % 3, 255, ids).astype(np.uint8))
    return "warning", "mostly-ignored", None, "% of the test pixels are ignored", "reduce_labels"


def plant_reduced_twice(source: Source) -> Said:
    change_all(source, lambda ids: np.array([255, 0, 1], np.uint8)[ids % 3])
    return "warning", "reduced-twice", None, "'sky', never occurs", "data.reduce_labels=false"


def plant_empty_class(source: Source) -> Said:
    for split in ("train", "test"):
        for pair in source.splits[split]:
            change(pair.mask, lambda ids: np.where(ids == 1, 0, ids).astype(np.uint8))
    return "warning", "empty-class", None, "'tree' never occurs in train, test", "cannot be learned"


def plant_strays(source: Source) -> Said:
    stray = source.root / "masks" / "alone.png"
    object.__setattr__(source, "unpaired", [stray])
    return "warning", "stray", stray, "mask without an image", "missing half"


def plant_image_without_mask(source: Source) -> Said:
    pair = replace(source.splits["train"][2], mask=None)
    source.splits["train"][2] = pair
    object.__setattr__(source, "unpaired", [pair.image])  # said once
    return "error", "image-without-mask", pair.image, "no mask, in the train split", "Add its mask"


def plant_leak(source: Source) -> Said:
    pair = source.splits["train"].pop()
    source.splits["train"].append(replace(source.splits["test"][0], image=pair.image, mask=pair.mask))
    return "error", "repeated-name", pair.image, "listed in train, test", "one split, once"


def plant_empty_split(source: Source) -> Said:
    source.splits["test"].clear()
    return "error", "empty-split", None, "the test split is empty", "Add samples"


PLANTS = [value for name, value in sorted(globals().items()) if name.startswith("plant_")]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_planted_fault(source: Source, plant: Callable[[Source], Said]) -> None:
    severity, fault, file, what, remedy = plant(source)
    report = check_source(source)
    findings = [each for each in report.findings if each.fault == fault and (not file or str(file) in each.files)]
    assert len(findings) == 1, report.findings
    assert findings[0].severity == severity
    assert what in findings[0].what
    assert remedy in findings[0].remedy
    assert {each.fault for each in report.findings} == {fault}  # and nothing is said that is not so
    if severity == "error":
        with pytest.raises(UserError) as error:
            report.raise_errors()
        assert remedy in str(error.value)
    else:
        report.raise_errors()


def test_palette_masks_read_as_greys(source: Source) -> None:
    for pair in all_pairs(source):
        mask = Image.open(pair.mask)
        mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 759)
        mask.save(pair.mask)
    assert check_source(source).findings == []
    findings = check_source(replace(source, read_ids=GreyReader())).findings
    assert {finding.fault for finding in findings} == {"grey-mask"}
    assert "original palette PNGs" in findings[0].remedy


def test_voc_greys_are_those_of_the_palette() -> None:
    index = np.arange(21)[:, None]
    bits = [((index >> (3 * bit + np.arange(3))) & 1) << (7 - bit) for bit in range(3)]
    colours = np.sum(bits, axis=0).astype(np.uint8)
    assert set(np.unique(Image.fromarray(colours[None]).convert("L")).tolist()) - {0} == VOC_GREYS


def test_a_mask_drawn_on_the_upright_image_is_right(source: Source) -> None:
    pair = source.splits["train"][3]
    turn(pair.image, 6)
    Image.open(pair.mask).transpose(Image.Transpose.ROTATE_270).save(pair.mask)
    assert check_source(source).findings == []


def test_two_hazy_views_are_no_duplicates(source: Source) -> None:
    for split in ("train", "test"):  # bright above and dark below, with other things in the haze
        rng = np.random.default_rng(len(split))
        haze = np.linspace(230, 30, 48)[:, None] + np.kron(rng.normal(0, 12, (8, 8)), np.ones((6, 8)))
        Image.fromarray(haze.clip(0, 255).astype(np.uint8)).convert("RGB").save(source.splits[split][0].image)
    assert check_source(source).findings == []


def test_all_faults_are_listed_at_once(source: Source) -> None:
    expected = {plant(source)[1] for plant in (plant_web_page, plant_jpeg_mask, plant_size, plant_missing_mask)}
    faults = [finding.fault for finding in check_source(source).findings]
    assert sorted(faults) == sorted(expected)


def test_an_unlabelled_split_needs_no_masks(source: Source) -> None:
    source.splits["predict"] = [replace(pair, name=f"p{pair.name}", mask=None) for pair in source.splits["test"][:1]]
    report = check_source(source)
    assert [finding.fault for finding in report.findings] == ["duplicate-across-splits"]
    assert list(report.pixels) == ["train", "validation", "test"]


def test_quick_check_reads_some_masks_and_misses_no_file(source: Source) -> None:
    train = source.splits["train"]
    train += [replace(train[0], name=f"again_{index}") for index in range(2 * QUICK_SAMPLES)]
    train[1:2] = []  # the second is not among those that are read
    gone = source.root / "images" / "gone.jpg"
    train.insert(1, Pair("gone", gone, train[0].mask))
    change(train[-1].mask, lambda ids: np.where(ids == 1, 9, ids).astype(np.uint8))
    report = check_source(source, quick=True)
    assert report.num_checked == QUICK_SAMPLES
    assert {finding.fault for finding in report.findings} == {"missing-file", "ids-outside"}
    assert [finding.files for finding in report.findings if finding.fault == "missing-file"] == [(str(gone),)]


def test_rows_of_a_data_set(source: Source) -> None:
    def rows(split: str) -> datasets.Dataset:
        pairs = source.splits[split]
        columns = {
            "image": [{"bytes": pair.image.read_bytes(), "path": None} for pair in pairs],
            "label": [{"bytes": pair.mask.read_bytes(), "path": None} for pair in pairs],
            "name": [pair.name for pair in pairs],
        }
        features = {"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")}
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    by_file = check_source(source)
    by_row = check_rows({split: rows(split) for split in source.splits}, LABELS)
    assert by_row.findings == []
    assert all(np.array_equal(by_row.pixels[split], by_file.pixels[split]) for split in source.splits)
    plant_id_outside(source)
    plant_web_page(source)
    findings = check_rows({split: rows(split) for split in source.splits}, LABELS).findings
    assert {(finding.fault, finding.files) for finding in findings} == {
        ("ids-outside", ("train/train_4 (label)",)),
        ("unreadable", ("train/train_0 (image)",)),
    }


def test_a_built_data_set_is_clean(pets: Path) -> None:
    assert check_rows(*load_dataset(DataConfig(name="oxford_pet", root=pets))).findings == []


def damaged(pets: Path, folder: Path, edit: Callable[[NDArray[np.uint8]], NDArray[np.generic]], number: int) -> Path:
    root = Path(shutil.copytree(pets, folder / "pets"))
    for path in sorted((root / "annotations" / "trimaps").iterdir())[:number]:
        change(path, edit)
    return root


def test_trimaps_from_0_are_another_coding(pets: Path, tmp_path: Path) -> None:
    root = damaged(pets, tmp_path, lambda trimap: trimap - 1, 100)
    report = check_data(DataConfig(name="oxford_pet", root=root))
    assert {finding.fault for finding in report.findings} == {"other-coding"}
    assert len(report.findings) == len(read_list(root, "trainval")) + len(read_list(root, "test"))
    assert "data.name=folder" in report.findings[0].remedy


def test_one_bad_trimap_is_not_taken_for_another_coding(pets: Path, tmp_path: Path) -> None:
    root = damaged(pets, tmp_path, lambda trimap: trimap - 1, 1)
    findings = check_data(DataConfig(name="oxford_pet", root=root)).findings
    assert [finding.fault for finding in findings] == ["ids-outside"]
    assert "holds [0]" in findings[0].what


def test_the_contact_sheet_shows_flagged_samples_first_and_values_as_stored(pets: Path, tmp_path: Path) -> None:
    root = damaged(pets, tmp_path, lambda trimap: np.where(trimap == 2, 9, trimap), 1)
    tiles = check_data(DataConfig(name="oxford_pet", root=root)).tiles
    assert [tile.faults for tile in tiles] == [("ids-outside",)] + [()] * 23
    assert all(tile.image.size == tile.ids.shape[::-1] for tile in tiles)
    assert set(np.unique(tiles[0].ids)) == {1, 3, 9}
    assert {tile.split for tile in tiles} == {"train", "validation", "test"}
    unread = [replace(tiles[0], image=None), replace(tiles[1], ids=None)]
    plot_contact_sheet(unread, LABELS, "damaged", tmp_path / "x.png")
    assert Image.open(tmp_path / "x.png").size[0] > 600


def test_long_lists_are_cut_and_strange_names_are_printed(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    files = [source.root / "images" / f"[red]{index}.jpg" for index in range(30)]
    findings = [Finding("warning", "stray", (str(file),), "alone", "Remove it.") for file in files]
    report = replace(check_source(source), findings=findings)
    report.print(Console())
    printed = capsys.readouterr().out
    assert "stray (30)" in printed
    assert f"images{os.sep}[red]0.jpg: alone" in printed
    assert "... and 22 more" in printed
    assert printed.count(": alone") == 8
    assert printed.count("Remove it.") == 1
    assert "0 errors, 30 warnings" in printed
    assert "sky" in printed


def write_config(folder: Path, root: Path) -> Path:
    tree = {"name": "run", "output_dir": str(folder / "run"), "data": {"name": "oxford_pet", "root": str(root)}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def command(config: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(REPOSITORY / "scripts" / "run_seg.py"), "--config", str(config), "--check"]
    return subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_command_on_good_and_on_bad_data(pets: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, pets)
    result = command(config)
    assert result.returncode == 0, result.stderr
    assert "0 errors, 1 warning" in result.stdout
    assert "warning: small-validation" in result.stdout  # of the four images
    folder = tmp_path / "run" / "check"
    assert sorted(path.name for path in folder.iterdir()) == ["check.json", "check.png", "class_distribution.png"]
    assert all(Image.open(folder / name).size[0] > 600 for name in ("check.png", "class_distribution.png"))
    written = json.loads((folder / "check.json").read_text())
    assert [found["fault"] for found in written["findings"]] == ["small-validation"]
    assert written["num_samples"] == {"train": 20, "validation": 4, "test": 6}
    assert sum(row["share"] for row in written["classes"]["train"]) == pytest.approx(1)

    name = read_list(pets, "test")[0]
    root = damaged(pets, tmp_path, np.copy, 0)
    change(root / "annotations" / "trimaps" / f"{name}.png", lambda trimap: np.where(trimap == 2, 7, trimap))
    result = command(write_config(tmp_path, root))
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")
    assert f"{name}.png" in result.stderr
    assert "Correct the mask" in result.stderr
    written = json.loads((folder / "check.json").read_text())
    assert written["num_errors"] == 1
    assert f"{name}.png" in written["findings"][0]["files"][0]


def test_training_does_not_start_on_bad_data(pets: Path, tmp_path: Path) -> None:
    config = RunConfig.load(write_config(tmp_path, damaged(pets, tmp_path, lambda trimap: trimap - 1, 100)))
    with pytest.raises(UserError, match=r"not fit for training(.|\n)*data\.name=folder"):
        run(config)
    assert not (tmp_path / "run").exists()


def test_real_subset_if_present() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "oxford-iiit-pet-3breeds"
    if not root.is_dir():
        pytest.skip("the real subset is not on this machine")
    report: Report = check_data(DataConfig(name="oxford_pet", root=root))
    # One photo is in the official trainval with a watermark, and in the official test without.
    assert [(finding.fault, [Path(file).stem for file in finding.files]) for finding in report.findings] == [
        ("near-duplicate-across-splits", ["Abyssinian_151", "Abyssinian_99"])
    ]
