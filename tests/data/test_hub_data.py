import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from transformers import SegformerImageProcessor

from hfseg import DataConfig, RunConfig, TransformsConfig, UserError, load_dataset, run
from hfseg.data import TrainTransform
from hfseg.data.samples import StreamingEvalSet, StreamingTrainSet
from hfseg.data.splits import find_splits, warn_unread
from hfseg.doctor import check_data
from tests.builders import make_folder
from tests.hub.server import HubServer
from tests.hub.storage import Repo

CLASSES = {"0": "sky", "1": "road", "2": "car"}
Truth = dict[str, list[NDArray[np.uint8]]]


def encode(image: Image.Image) -> dict[str, Any]:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def as_grey(ids: NDArray[np.uint8]) -> dict[str, Any]:
    return encode(Image.fromarray(ids))


def as_palette(ids: NDArray[np.uint8]) -> dict[str, Any]:
    image = Image.new("P", ids.shape[::-1])
    image.putdata(ids.ravel().tolist())
    image.putpalette([k * 7 % 256 for k in range(768)])
    return encode(image)


def as_16_bit(ids: NDArray[np.uint8]) -> dict[str, Any]:
    return encode(Image.fromarray(ids.astype(np.uint16)))


KINDS: list[tuple[Callable[[NDArray[np.uint8]], Any], Any]] = [
    (as_grey, datasets.Image()),
    (as_palette, datasets.Image()),
    (as_16_bit, datasets.Image()),
    (as_grey, {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}),
    (lambda ids: ids.tolist(), datasets.Array2D((10, 12), "int32")),
    (lambda ids: ids.tolist(), datasets.List(datasets.List(datasets.Value("uint8")))),
]


def make(
    root: Path,
    convert: Callable[[NDArray[np.uint8]], Any] = as_grey,
    feature: Any = KINDS[0][1],
    counts: dict[str, int] | None = None,
    named: bool = False,
    files: int = 1,
) -> Truth:
    """Writes parquet files as the Hub has them; returns the ids by split, in order."""
    root.mkdir(parents=True, exist_ok=True)
    features = {"id": datasets.Value("int64"), "picture": datasets.Image(), "annotation": feature}
    features |= {"name": datasets.Value("string")} if named else {}
    truth: Truth = {}
    rng = np.random.default_rng(0)
    for split, count in ({"train": 24, "validation": 6} if counts is None else counts).items():
        truth[split] = [rng.integers(0, 4, (10, 12)).astype(np.uint8) for _ in range(count)]
        for ids in truth[split]:
            ids[ids == 3] = 255
        rows = [
            {"id": k, "picture": encode(picture(split, k)), "annotation": convert(ids), "name": f"{split} no. {k}"}
            for k, ids in enumerate(truth[split])
        ]
        rows = [{key: row[key] for key in features} for row in rows]
        for index in range(files):
            part = datasets.Dataset.from_list(rows[index::files], features=datasets.Features(features))
            part.to_parquet(root / f"{split}-{index:05d}-of-{files:05d}.parquet")
    (root / "id2label.json").write_text(json.dumps(CLASSES))
    return truth


def picture(split: str, index: int) -> Image.Image:
    """No two are the same; the red channel of the first pixel is the number."""
    pixels = np.random.default_rng([len(split), index]).integers(0, 255, (10, 12, 3), np.uint8)
    pixels[0, 0, 0] = index
    return Image.fromarray(pixels)


def config(root: Path | None, **options: Any) -> DataConfig:
    columns = {"image_column": "picture", "label_column": "annotation"}
    return DataConfig(name="hub", root=root, **(columns | options))


def load(root: Path | None, **options: Any) -> datasets.DatasetDict:
    return load_dataset(config(root, **options))[0]


def complaint(root: Path | None, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load(root, **options)
    return str(error.value)


def assert_same(rows: datasets.Dataset | list, truth: list[NDArray[np.uint8]]) -> None:
    """Each row's label is the one that was written with its image."""
    seen = []
    for row in rows:
        assert list(row) == ["image", "label", "name"]
        index = row["image"].getpixel((0, 0))[0]
        assert row["image"].mode == "RGB"
        np.testing.assert_array_equal(np.asarray(row["label"]), truth[index])
        seen.append(index)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(("convert", "feature"), KINDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_ids_pixel_by_pixel(tmp_path: Path, convert: Callable, feature: Any, streaming: bool) -> None:
    truth = make(tmp_path, convert, feature)
    data, labels = load_dataset(config(tmp_path, streaming=streaming))
    assert (labels.names, labels.ignore_index) == (("sky", "road", "car"), 255)
    assert_same(data["test"], truth["validation"])
    rows = [*data["train"], *data["validation"]]
    assert_same(rows, truth["train"])
    assert len(rows) == 24


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_of_other_names(tmp_path: Path, streaming: bool, caplog: pytest.LogCaptureFixture) -> None:
    truth = make(tmp_path / "data", counts={"train": 20, "dev": 5, "unlabeled": 2})
    (tmp_path / "data" / "id2label.json").rename(tmp_path / "id2label.json")
    data = load(tmp_path, streaming=streaming)
    assert_same(data["test"], truth["dev"])
    assert f"{tmp_path}: its split 'dev' is taken for validation." in caplog.text
    assert "no labelled test split, so validation is the test" in caplog.text
    assert f"{tmp_path}: not read are its splits 'unlabeled', whose names are none of" in caplog.text


def test_files_of_no_split_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, counts={"train": 20, "holdout": 5})
    assert sum(map(len, load(tmp_path).values())) == 20
    assert f"{tmp_path}: not read are ['holdout-00000-of-00001.parquet']" in caplog.text


def test_files_that_seem_to_be_several_splits_are_not_taken_for_one(tmp_path: Path) -> None:
    make(tmp_path, counts={"train": 12, "test": 4})
    for path in list(tmp_path.glob("*.parquet")):
        path.rename(path.with_name(path.name.capitalize()))
    message = complaint(tmp_path)
    assert "'Test-00000-of-00001.parquet' and 'Train-00000-of-00001.parquet' seem to be of several splits" in message
    for path in list(tmp_path.glob("*.parquet")):
        path.rename(path.with_name(path.name.lower()))
    assert len(load(tmp_path)["test"]) == 4


def test_development_is_validation_only_where_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    found = find_splits(["train", "val", "dev"], "x")
    assert found == {"train": "train", "validation": "val"}
    warn_unread(["train", "val", "dev"], found, "x")
    assert "x: not read are its splits 'dev'" in caplog.text
    with pytest.raises(UserError, match="x holds dev and eval, which both mean the validation split"):
        find_splits(["train", "dev", "eval"], "x")


def test_splits(tmp_path: Path) -> None:
    make(tmp_path)
    data = load(tmp_path)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 22, "validation": 2, "test": 6}
    assert data["test"]["name"][:2] == ["validation-000000", "validation-000001"]
    assert set(data["train"]["name"]) | set(data["validation"]["name"]) == {f"train-{k:06d}" for k in range(24)}
    make(tmp_path / "named", named=True, counts={"train": 20})
    data = load(tmp_path / "named")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 16, "validation": 2, "test": 2}
    assert {name for rows in data.values() for name in rows["name"]} == {f"train no. {k}" for k in range(20)}


def test_a_stream_holds_out_the_same_whatever_the_workers(tmp_path: Path) -> None:
    make(tmp_path, counts={"train": 120}, files=3)
    data = load(tmp_path, streaming=True)
    names = {split: [row["name"] for row in rows] for split, rows in data.items()}
    assert len(set().union(*names.values())) == sum(map(len, names.values())) == 120
    assert 4 <= len(names["validation"]) <= 24
    assert 4 <= len(names["test"]) <= 24
    loaded = DataLoader(StreamingTrainSet(data["train"], transform()), batch_size=None, num_workers=2)
    assert sorted(sample["name"] for sample in loaded) == sorted(names["train"])


def test_a_test_without_labels_is_to_predict(tmp_path: Path) -> None:
    make(tmp_path, counts={"train": 20, "val": 3})
    make(tmp_path, convert=lambda _: None, counts={"test": 4})
    for streaming in (False, True):
        data = load(tmp_path, streaming=streaming)
        assert set(data) == {"train", "validation", "test", "predict"}
        assert [row["label"] for row in data["predict"]] == [None] * 4
        assert len(list(data["test"])) == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_reduced_labels(tmp_path: Path, streaming: bool) -> None:
    truth = make(tmp_path)
    (tmp_path / "id2label.json").write_text(json.dumps({"0": "road", "1": "car"}))
    reduced = [np.where((ids == 0) | (ids == 255), 255, ids - 1) for ids in truth["validation"]]
    assert_same(load(tmp_path, streaming=streaming, reduce_labels=True)["test"], reduced)


def test_saved_to_disk(tmp_path: Path) -> None:
    truth = make(tmp_path / "parquet")
    datasets.load_dataset(str(tmp_path / "parquet")).save_to_disk(tmp_path / "arrow")
    (tmp_path / "arrow" / "classes.txt").write_text("sky\nroad\ncar\n")
    before = sorted(tmp_path.glob("arrow/**/*"))
    for streaming in (False, True):
        assert_same(load(tmp_path / "arrow", streaming=streaming)["test"], truth["validation"])
    assert sorted(tmp_path.glob("arrow/**/*")) == before  # nothing is written into the user's folder


def test_round_trip_of_what_load_dataset_gives(tmp_path: Path) -> None:
    """As the Hub does it: parquet with the features in its metadata and the images' bytes inside."""
    truth = make_folder(tmp_path / "folder")
    data, _ = load_dataset(DataConfig(name="folder", root=tmp_path / "folder"))
    (tmp_path / "hub").mkdir()
    for split, rows in data.items():
        table = datasets.table.embed_table_storage(rows.with_format("arrow")[:])
        datasets.Dataset(table).to_parquet(tmp_path / "hub" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "folder" / "classes.txt").rename(tmp_path / "hub" / "classes.txt")
    for path in (tmp_path / "folder").glob("**/*.jpg"):
        path.unlink()
    again, _ = load_dataset(DataConfig(name="hub", root=tmp_path / "hub"))
    for split, rows in data.items():
        assert list(again[split]["name"]) == list(rows["name"])
        for row in again[split]:
            np.testing.assert_array_equal(np.asarray(row["label"]), truth[row["name"]])
            assert row["image"].size == row["label"].size


def test_the_doctor_reads_rows_and_refuses_streams(tmp_path: Path) -> None:
    make(tmp_path)
    report = check_data(config(tmp_path))
    assert report.num_checked == sum(report.num_samples.values()) > 0
    assert not report.errors
    with pytest.raises(UserError, match="stream cannot be checked"):
        check_data(config(tmp_path, streaming=True))


def test_a_changed_mask_or_class_file_is_read_again(tmp_path: Path) -> None:
    make(tmp_path, counts={"train": 20, "validation": 3})
    load(tmp_path)
    before = {path: path.stat() for path in tmp_path.glob("*.parquet")}
    truth = make(tmp_path, counts={"validation": 3, "train": 20})  # other random ids, files of the same names
    for path, state in before.items():
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # all that `datasets` itself looks at
    assert_same(load(tmp_path)["test"], truth["validation"])
    (tmp_path / "id2label.json").write_text(json.dumps({"0": "a", "1": "b"}))
    assert "has 2 classes" in complaint(tmp_path) or "has the values [2]" in complaint(tmp_path)
    (tmp_path / "id2label.json").write_text(json.dumps(CLASSES | {"2": "lorry"}))
    assert load_dataset(config(tmp_path))[1].names[2] == "lorry"


# --- what is wrong


def wrong_row(root: Path, row: dict[str, Any]) -> None:
    """A data set whose training row 3 is replaced."""
    make(root)
    path = root / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
    features = rows.features
    changed = rows.cast_column("picture", datasets.Image(decode=False)).cast_column(
        "annotation", datasets.Image(decode=False)
    )
    plain = changed.to_list()
    plain[3] |= row
    datasets.Dataset.from_list(plain, features=features).to_parquet(path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"annotation": as_grey(np.full((10, 12), 7, np.uint8))}, "has the values [7] in 120 pixels"),
        ({"annotation": encode(Image.new("RGB", (12, 10)))}, "is RGB with three equal channels"),
        ({"annotation": as_grey(np.zeros((12, 10), np.uint8))}, "but its mask is 10x12"),
        ({"annotation": {"bytes": b"<html>", "path": None}}, "The mask of"),
        ({"annotation": None}, "there is no mask"),
        ({"picture": {"bytes": b"<html>", "path": None}}, "cannot be read as an image"),
        ({"picture": {"bytes": b"", "path": None}}, "cannot be read as an image"),
        ({"picture": None}, "the cell is empty; fill it, or remove the row"),
    ],
)
def test_wrong_rows_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    wrong_row(tmp_path, row)
    message = complaint(tmp_path)
    assert said in message
    assert f"{tmp_path}, split train, row 3" in message
    with pytest.raises(UserError) as error:
        list(load(tmp_path, streaming=True)["train"])
    assert said in str(error.value)
    assert f"{tmp_path}, split train, row 3" in str(error.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_that_looks_like_images_only_by_its_keys(tmp_path: Path, streaming: bool) -> None:
    numbers = {"bytes": datasets.Value("int64"), "path": datasets.Value("string")}
    make(tmp_path, lambda _: {"bytes": 3, "path": None}, numbers)
    assert "the column 'annotation' holds {" in complaint(tmp_path, streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_what_is_not_there(tmp_path: Path, streaming: bool) -> None:
    make(tmp_path)
    said = complaint(tmp_path, label_column="mask", streaming=streaming)
    assert "no column 'mask'. Set data.label_column to one of id, picture, annotation" in said
    said = complaint(tmp_path, image_column="id", streaming=streaming)
    assert "the column 'id' holds Value('int64'), not images" in said
    assert "data.subset" in complaint(tmp_path, subset="xx", streaming=streaming)
    assert "no class file names.txt" in complaint(tmp_path, classes="names.txt")
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    assert "has no train split (found: test)" not in (said := complaint(tmp_path, streaming=streaming))
    assert "has no train split (found: validation)" in said
    assert "is not a folder" in complaint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="either data"):
        load_dataset(DataConfig(name="hub"))


def test_ragged_masks_and_empty_splits_are_named(tmp_path: Path) -> None:
    nested = datasets.List(datasets.List(datasets.Value("int32")))
    make(tmp_path, lambda ids: [[0, 1], [2]], nested)
    assert "split train, row 0 is no array of (height, width)" in complaint(tmp_path)
    make(tmp_path / "empty", counts={"train": 20})
    path = tmp_path / "empty" / "train-00000-of-00001.parquet"
    none = datasets.Dataset.from_parquet(str(path), keep_in_memory=True).select([])
    # with a size: without one, datasets 5.0 divides by the number of rows
    none.to_parquet(tmp_path / "empty" / "test-00000-of-00001.parquet", batch_size=1)
    for streaming in (False, True):
        said = complaint(tmp_path / "empty", streaming=streaming)
        assert "is empty" in said
        assert "Add rows to it, or remove its files" in said


@pytest.mark.parametrize("streaming", [False, True])
def test_a_test_that_has_masks_here_and_there(tmp_path: Path, streaming: bool) -> None:
    """Whichever comes first decides, and the other is named: in a training's last minutes none is found missing."""
    for first, said in ((0, "row 1: there is no mask"), (1, "row 1: there is a mask, but the first row has none")):
        root, masks = tmp_path / str(first), iter([1, 0] * 2 if first else [0, 1] * 2)
        make(root, counts={"train": 20})
        make(root, lambda ids, masks=masks: None if next(masks) else as_grey(ids), counts={"test": 4})
        with pytest.raises(UserError, match=f"split test, {said}"):
            [list(rows) for rows in load(root, streaming=streaming).values()]


@pytest.mark.parametrize("wrong", [None, "train no. 4"])
def test_a_name_that_does_not_name_its_row(
    tmp_path: Path, wrong: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, named=True)
    path = tmp_path / "train-00000-of-00001.parquet"
    rows = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
    names = [*rows["name"][:3], wrong, *rows["name"][4:]]
    column = datasets.Dataset.from_dict({"name": names}, features=datasets.Features(name=datasets.Value("string")))
    datasets.concatenate_datasets([rows.remove_columns("name"), column], axis=1).to_parquet(path)
    data = load(tmp_path)
    assert {*data["train"]["name"], *data["validation"]["name"]} == {f"train-{k:06d}" for k in range(24)}
    assert "so rows are called by their numbers" in caplog.text
    streamed = [row["name"] for rows in load(tmp_path, streaming=True).values() for row in rows]
    assert len(streamed) == 30
    assert all(isinstance(name, str) for name in streamed)


def test_a_part_of_a_stream_that_no_row_has_come_into(tmp_path: Path) -> None:
    make(tmp_path, counts={"train": 4})
    said = complaint(tmp_path, streaming=True)
    assert "no row is left for the validation split" in said
    assert "data.streaming=false" in said
    assert len(load(tmp_path)["validation"]) == 1


def test_a_path_that_datasets_takes_for_a_pattern(tmp_path: Path) -> None:
    make(tmp_path / "a[1]b")
    assert "takes [ in a path for a pattern" in complaint(tmp_path / "a[1]b")


def test_damaged_file(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    said = complaint(tmp_path)
    assert f"data.root={tmp_path} cannot be read" in said
    assert "Are all its files there and whole?" in said


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"data\.repo=owner/data: the Hub cannot be reached .*HF_HUB_OFFLINE"):
        load_dataset(DataConfig(name="hub", repo="owner/data", classes=tmp_path / "classes.txt"))
    with pytest.raises(UserError, match=r"data\.repo=owner/data: the Hub cannot be reached"):
        load_dataset(DataConfig(name="hub", repo="owner/data", classes="id2label.json"))
    with pytest.raises(UserError, match=r"needs data\.classes"):
        load_dataset(DataConfig(name="hub", repo="owner/data"))


@pytest.fixture
def on_hub(hub: HubServer, tmp_path: Path) -> Truth:
    """A folder of parquet files as tester/data, and one that is closed to us."""
    truth = make(tmp_path / "repo")
    api = huggingface_hub.HfApi()
    api.create_repo("tester/data", repo_type="dataset", private=True)
    api.upload_folder(repo_id="tester/data", repo_type="dataset", folder_path=tmp_path / "repo")
    closed = Repo("datasets", "owner/gated", gated=True)
    closed.advance("main", closed.head, hub.repo("tester/data", "datasets").head.files, "the same files")
    hub.storage.repos["datasets", "owner/gated"] = closed
    return truth


def test_a_repository(on_hub: Truth, hub: HubServer) -> None:
    options = {"repo": "tester/data", "classes": "id2label.json"}
    assert_same(load(None, **options)["test"], on_hub["validation"])
    assert_same(load(None, **options, streaming=True)["test"], on_hub["validation"])
    pinned = hub.repo("tester/data", "datasets").head.oid
    huggingface_hub.HfApi().delete_file("id2label.json", "tester/data", repo_type="dataset")
    assert_same(load(None, **options, revision=pinned)["test"], on_hub["validation"])


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_what_a_repository_lacks(on_hub: Truth, tmp_path: Path) -> None:
    local = {"repo": "tester/data", "classes": tmp_path / "repo" / "id2label.json"}
    remote = local | {"classes": "id2label.json"}
    said = complaint(None, **remote | {"classes": "no.txt"})
    assert said == "data.classes=no.txt is neither a local file nor in tester/data."
    assert "data.subset=none: BuilderConfig 'none' not found" in complaint(None, **local, subset="none")
    for options in (local, remote):
        said = complaint(None, **options, revision="no-branch")
        assert "data.repo=tester/data has no data.revision=no-branch" in said
        for repo in ("tester/missing", "owner/gated"):
            said = complaint(None, **options | {"repo": repo})
            assert f"data.repo={repo} is not on the Hub, or private or gated" in said


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("streaming", [False, True])
def test_round_trip_over_the_hub(tmp_path: Path, streaming: bool) -> None:
    """What `push_to_hub` makes of the splits is read back with every mask as it was."""
    truth = make(tmp_path, named=True)
    data = load(tmp_path)
    data.push_to_hub("tester/pushed", private=True)
    again, _ = load_dataset(
        DataConfig(name="hub", repo="tester/pushed", classes=tmp_path / "id2label.json", streaming=streaming)
    )
    assert_same(again["test"], truth["validation"])
    for split, rows in data.items():
        assert [row["name"] for row in again[split]] == list(rows["name"])
    assert_same([*again["train"], *again["validation"]], truth["train"])


# --- samples of a stream


def transform() -> TrainTransform:
    return TrainTransform(TransformsConfig(size=32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def collect(stream: StreamingTrainSet, workers: int = 0, epoch: int = 0) -> dict[str, torch.Tensor]:
    stream.set_epoch(epoch)
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    return {sample["name"]: sample["pixel_values"] for sample in loader}


def test_pixels_of_a_stream_depend_on_seed_epoch_and_name(tmp_path: Path) -> None:
    make(tmp_path, files=2)
    data = load(tmp_path, streaming=True)["train"]
    first = collect(StreamingTrainSet(data, transform(), seed=1))
    again = collect(StreamingTrainSet(data, transform(), seed=1), workers=2)
    assert first.keys() == again.keys()
    assert all(first[name].equal(again[name]) for name in first)
    for other in (
        collect(StreamingTrainSet(data, transform(), seed=1), epoch=1),
        collect(StreamingTrainSet(data, transform(), seed=2)),
    ):
        assert first.keys() == other.keys()
        assert list(first) != list(other)
        assert not any(first[name].equal(other[name]) for name in first)


def test_evaluation_of_a_stream_leaves_labels_alone(tmp_path: Path) -> None:
    truth = make(tmp_path)
    data = load(tmp_path, streaming=True)["test"]
    samples = list(StreamingEvalSet(data, SegformerImageProcessor(size={"height": 32, "width": 48})))
    assert [sample["labels"].numpy().tolist() for sample in samples] == [ids.tolist() for ids in truth["validation"]]
    assert samples[0]["pixel_values"].shape == (3, 32, 48)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("hub")
    make(root, files=2)
    data = {"name": "hub", "root": str(root), "image_column": "picture", "label_column": "annotation"}
    train = {"max_steps": 8, "per_device_train_batch_size": 8, "eval_strategy": "steps", "save_strategy": "steps",
             "eval_steps": 8, "save_steps": 8, "logging_steps": 4}  # fmt: skip
    return {"name": "r", "transforms": {"size": 32}, "eval": {"size": 32}, "data": data, "train": train}


def test_a_run_on_a_stream_scores_every_pixel_once(settings: dict[str, Any], tmp_path: Path) -> None:
    """Several epochs; the score of the same weights is that of the run that does not stream."""
    tree = settings | {"output_dir": str(tmp_path / "streamed"), "data": settings["data"] | {"streaming": True}}
    streamed = run(RunConfig.from_tree(tree, "test"))
    assert (tmp_path / "streamed" / "figures" / "predictions.png").exists()
    model = {"init": str(tmp_path / "streamed" / "model")}
    tree = settings | {"output_dir": str(tmp_path / "eager"), "model": model}
    eager = run(RunConfig.from_tree(tree, "test"), eval_only=True)
    assert streamed["test_mean_iou"] == pytest.approx(eager["test_mean_iou"], abs=1e-12)
    assert streamed["test_loss"] == pytest.approx(eager["test_loss"], rel=1e-5)


def test_a_test_that_cannot_be_scored_costs_no_other_score(settings: dict[str, Any], tmp_path: Path) -> None:
    """A mask is missing where only the last evaluation of a stream comes to."""
    make(tmp_path / "data", counts={"train": 24, "validation": 4})
    masks = iter([1, 1, 0])
    make(tmp_path / "data", lambda ids: as_grey(ids) if next(masks) else None, counts={"test": 3})
    data = settings["data"] | {"root": str(tmp_path / "data"), "streaming": True}
    train = {"max_steps": 1, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    tree = settings | {"output_dir": str(tmp_path / "run"), "data": data, "train": train}
    with pytest.raises(UserError) as error:
        run(RunConfig.from_tree(tree, "test"))
    assert "The test split could not be scored" in str(error.value)
    assert "split test, row 2: there is no mask" in str(error.value)
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 <= metrics["eval_mean_iou"] <= 1
    assert metrics["test_mean_iou"] is None
    assert "split test, row 2" in metrics["test_error"]
    rows = json.loads((folder / "per_class.json").read_text())
    assert [row["iou"] for row in rows["test"]] == [None] * 3
    card, page = ((folder / name).read_text() for name in ("README.md", "report.html"))
    assert "test split could not be scored" in card
    assert "row 2: there is no mask" in page
    assert "Each class on the validation split" in page
    assert "Each class on the test split" not in page  # of which no pixel was counted
    assert not [text for text in (card, page) if "scored once" in text]
    make(tmp_path / "data", counts={"test": 3})
    scores = run(RunConfig.from_tree(tree, "test"), eval_only=True)  # which the message says
    assert 0 <= scores["test_mean_iou"] <= 1
    assert scores["eval_mean_iou"] == metrics["eval_mean_iou"]
    assert "test_error" not in json.loads((folder / "metrics.json").read_text())


def test_a_stream_needs_max_steps(settings: dict[str, Any], tmp_path: Path) -> None:
    tree = settings | {"output_dir": str(tmp_path / "r"), "data": settings["data"] | {"streaming": True}, "train": {}}
    with pytest.raises(UserError, match=r"train\.max_steps must say how long"):
        run(RunConfig.from_tree(tree, "test"))
