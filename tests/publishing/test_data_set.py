"""A data set to the Hub and back: what is trained on there is what was here, and nothing private has gone along."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import ExifTags, Image, PngImagePlugin

from hfseg import DataConfig, RunConfig, UserError, load_dataset, run
from hfseg.command import push_dataset
from hfseg.publishing import check_data_push, push_data
from hfseg.publishing import data_set as data_set_module
from hfseg.publishing.plain_images import without_metadata
from tests.builders import FOLDER_CLASSES, SETTINGS, environment, make_folder
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

LFS = pytest.mark.parametrize("hub", ["lfs"], indirect=True)
PLACE = "taken at 48.2082 N"


def config_of(root: Path, hub: dict[str, Any] | None = None, **data: Any) -> RunConfig:
    tree = {
        "name": "mine",
        "output_dir": str(root.parent / "run"),
        "data": {"name": "folder", "root": str(root)} | data,
    }
    return RunConfig.from_tree(tree | {"hub": {"repo": "tester/mine"} | (hub or {})}, "test")


def publish(config: RunConfig, licence: str | None = None) -> bool:
    return push_data(config, check_data_push(config, licence), licence).is_new


def read_back(card: str) -> dict[str, Any]:
    """The `data` section of a config that the card shows."""
    import yaml

    return yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])["data"]


def assert_same(there: datasets.DatasetDict, here: datasets.DatasetDict) -> None:
    assert there.keys() == here.keys()
    for split in here:
        assert there[split]["name"][:] == here[split]["name"][:]
        for one, other in zip(there[split], here[split], strict=True):
            assert np.array_equal(np.asarray(one["image"]), np.asarray(other["image"])), (split, one["name"])
            assert np.array_equal(np.asarray(one["label"]), np.asarray(other["label"])), (split, one["name"])


def test_a_folder_there_and_back_again(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "alice" / "scans"
    make_folder(root, counts={"train": 12, "val": 3, "test": 3})
    monkeypatch.setattr(data_set_module, "ROWS", 5)
    config = config_of(root, note="Scans of knees")
    assert publish(config, "cc-by-4.0")
    assert not publish(config, "cc-by-4.0")  # the same bytes again
    assert [commit.title for commit in hub.repo("tester/mine", "datasets").history()] == [
        "Publish the data set", "initial commit",
    ]  # fmt: skip
    assert hub.repo("tester/mine", "datasets").private
    files = hub.files("tester/mine", kind="datasets")
    assert [name for name in files if name.startswith("data/train")] == [
        f"data/train-0000{number}-of-00003.parquet" for number in range(3)
    ]
    assert json.loads(files["id2label.json"]) == {str(index): name for index, name in enumerate(FOLDER_CLASSES)}
    card = DatasetCard(files["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.task_categories == ["image-segmentation"]
    assert card.data.size_categories == ["n<1K"]
    assert "12 train, 3 validation, 3 test images. Scans of knees." in card.text
    here, labels = load_dataset(config.data)
    there, names = load_dataset(DataConfig(**read_back(card.text)))
    assert names.names == labels.names
    assert names.ignore_index == labels.ignore_index
    assert_same(there, here)
    stock = datasets.load_dataset("tester/mine", split="train")
    assert stock.features["classes"].feature.names == FOLDER_CLASSES
    assert stock.num_rows == card.data["dataset_info"]["splits"][0]["num_examples"]
    for row in stock:
        assert row["label"].mode == "L"
        assert row["classes"] == [id_ for id_ in np.unique(np.asarray(row["label"])).tolist() if id_ != 255]
    assert str(tmp_path).encode() not in hub.sent()


@LFS
def test_what_was_taken_out_is_gone_there_too(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_set_module, "ROWS", 4)
    make_folder(tmp_path / "scans", counts={"train": 9, "val": 2, "test": 2})
    assert publish(config_of(tmp_path / "scans"))
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (tmp_path / "scans" / kind / "train" / f"03.{suffix}").unlink()
    assert publish(config_of(tmp_path / "scans"))
    names = hub.files("tester/mine", kind="datasets").keys()
    assert sum("train" in name for name in names) == 2
    assert len(datasets.load_dataset("tester/mine", split="train")) == 8


@LFS
def test_a_model_trains_on_what_was_published(hub: HubServer, tmp_path: Path) -> None:
    """From the command line: drawn data, whose licence is known, for everybody to see."""
    command = [sys.executable, "-m", "hfseg", "push", "--dataset", "quickstart", "hub.repo=tester/drawn",
               "hub.private=false", "data.synthetic={num_trainval: 16, num_test: 4, size: 64}",
               f"output_dir={tmp_path / 'quickstart'}"]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.endpoint}/datasets/tester/drawn (commit " in done.stdout
    assert not hub.repo("tester/drawn", "datasets").private
    card = DatasetCard(hub.files("tester/drawn", kind="datasets")["README.md"].decode())
    assert card.data.license == "apache-2.0"
    tree = SETTINGS | {"data": read_back(card.text), "output_dir": str(tmp_path / "run")}
    assert run(RunConfig.from_tree(tree, "card"))["test_num_images"] == 4
    assert (tmp_path / "run" / ".eval_results" / "hfseg.yaml").is_file()


@LFS
def test_a_data_set_with_mistakes_is_not_published(hub: HubServer, tmp_path: Path) -> None:
    make_folder(tmp_path / "scans")
    for name in ("00", "01"):  # reading would stop at the first
        mask = tmp_path / "scans" / "masks" / "train" / f"{name}.png"
        Image.fromarray(np.full(np.asarray(Image.open(mask)).shape, 77, np.uint8)).save(mask)
    with pytest.raises(UserError, match=r"00\.png.*\(1 more; --check lists them all\)"):
        push_dataset(str(tmp_path / "scans"), ["hub.repo=tester/mine", f"output_dir={tmp_path / 'run'}"])
    assert not hub.requests("POST")
    config_of(tmp_path / "scans", {"private": False}).save(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"hub\.repo is not set"):  # the config's is the model's
        push_dataset(str(tmp_path / "mine.yaml"))


def with_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.ImageDescription] = PLACE
    return exif


def png_info() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", PLACE)
    return info


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"exif": with_exif(1), "comment": PLACE.encode()}),
        ("JPEG", {"exif": with_exif(6), "progressive": True}),
        ("JPEG", {"exif": with_exif(3), "xmp": PLACE.encode(), "restart_marker_blocks": 2}),
        ("MPO", {"exif": with_exif(8), "save_all": True, "append_images": [Image.new("RGB", (8, 8))]}),
        ("PNG", {"exif": with_exif(6)}),
        ("PNG", {"pnginfo": png_info()}),
        ("WEBP", {"exif": with_exif(1), "lossless": True}),
        ("TIFF", {"description": PLACE}),
        ("GIF", {"comment": PLACE.encode()}),
    ],
)
def test_nothing_but_pixels_is_published(kind: str, options: dict[str, Any]) -> None:
    image = Image.effect_noise((37, 21), 80).convert("RGB")
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    data = buffer.getvalue()
    assert PLACE.encode() in data
    plain = without_metadata(data + (PLACE.encode() if kind in ("JPEG", "MPO") else b""))
    assert PLACE.encode() not in plain
    decode = datasets.Image(mode="RGB").decode_example
    before, after = (decode({"bytes": each, "path": None}) for each in (data, plain))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert (Image.open(BytesIO(plain)).format == "JPEG") == (kind in ("JPEG", "MPO"))
    assert without_metadata(plain) == plain


@pytest.mark.parametrize(("kind", "options"), [("PNG", {"dpi": (72, 72)}), ("WEBP", {}), ("JPEG", {"quality": 90})])
def test_a_plain_image_stays_as_it_is(kind: str, options: dict[str, Any]) -> None:
    buffer = BytesIO()
    Image.effect_noise((37, 21), 80).convert("RGB").save(buffer, format=kind, **options)
    assert without_metadata(buffer.getvalue()) == buffer.getvalue()


@LFS
@pytest.mark.parametrize(
    ("data", "stored"), [({"ignore_index": -100}, 255), ({"ignore_index": 3}, 3), ({"ignore_index": 200}, 200)]
)
def test_any_ignore_index(hub: HubServer, tmp_path: Path, data: dict[str, Any], stored: int) -> None:
    make_folder(tmp_path / "scans", void={-100: 255, 3: None, 200: 200}[data["ignore_index"]])
    if data["ignore_index"] < 0:
        lines = [*(f"{index}: {name}" for index, name in enumerate(FOLDER_CLASSES)), "255: unlabelled"]
        (tmp_path / "scans" / "classes.txt").write_text("\n".join(lines))
    config = config_of(tmp_path / "scans", **data)
    publish(config)
    card = hub.files("tester/mine", kind="datasets")["README.md"].decode()
    here, labels = load_dataset(config.data)
    there, names = load_dataset(DataConfig(**read_back(card)))
    assert (names.names, names.ignore_index) == (labels.names, stored)
    raw = datasets.load_dataset("tester/mine", split="train").cast_column("label", datasets.Image(decode=False))
    assert all(row["label"]["bytes"].startswith(b"\x89PNG") for row in raw)
    for split, rows in here.items():
        for one, other in zip(rows, there[split], strict=True):
            ids = np.asarray(one["label"])
            assert np.array_equal(np.where(ids < 0, stored, ids), np.asarray(other["label"]))


@pytest.mark.parametrize(
    ("data", "hub", "licence", "said"),
    [
        ({}, {"repo": None}, None, "hub.repo is not set"),
        ({}, {"private": False}, None, "nothing says what they may do with it: add --license"),
        ({"name": "cityscapes"}, {}, None, "its terms do not allow to pass the images on"),
        ({"name": "oxford_pet"}, {}, "mit", "Oxford-IIIT Pet is under cc-by-sa-4.0"),
    ],
)
def test_what_is_not_published(
    tmp_path: Path, data: dict[str, Any], hub: dict[str, Any], licence: str | None, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check_data_push(config_of(tmp_path, hub, **data), licence)


@LFS
def test_of_a_row_named_by_a_path_the_file_name_is_left(hub: HubServer, tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    cell = {"bytes": buffer.getvalue(), "path": None}
    rows = [{"image": cell, "label": cell, "name": f"/home/alice/{number}"} for number in range(12)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")}
    )
    (tmp_path / "rows").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "rows" / "train.parquet")
    publish(config_of(tmp_path / "rows", name="hub", classes=["sky", "road"]))
    assert sorted(datasets.load_dataset("tester/mine", split="test")["name"][:]) == ["1"]
    assert b"alice" not in hub.sent()
