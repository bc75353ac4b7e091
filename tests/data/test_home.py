"""Which files the rows of a data set can have opened."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hfseg import DataConfig, TrainSet, TransformsConfig, UserError, load_dataset
from hfseg.data import TrainTransform
from hfseg.data.allowed_files import AllowedFiles
from hfseg.doctor import check_data

SIZE = (12, 10)


def png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


IMAGE, MASK = png(Image.new("RGB", SIZE, (9, 8, 7))), png(Image.new("L", SIZE, 1))
IMAGES = [png(Image.new("RGB", SIZE, (red, 8, 7))) for red in range(60)]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server on loopback that gives an image to everyone; its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(IMAGE)

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    httpd.server_close()


def make(root: Path, index: int = 3, **cells: Any) -> Path:
    """A parquet file of 60 rows, one of which has other cells; there may be another column of images."""
    mask, rows = {"bytes": MASK, "path": None}, []
    for content in IMAGES:
        image = {"bytes": content, "path": None}
        rows.append({"image": image, "label": mask} | {key: image for key in cells if key == "other"})
    rows[index] |= cells
    root.mkdir(exist_ok=True)
    features = datasets.Features(dict.fromkeys(rows[0], datasets.Image()))
    # `to_parquet` would write the bytes of the files that the rows name
    pq.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema), root / "train-00000-of-00001.parquet")
    (root / "classes.txt").write_text("sky\nroad\n")
    return root


def config(root: Path, streaming: bool = False) -> DataConfig:
    return DataConfig(name="hub", root=root, label_column="label", streaming=streaming)


@pytest.mark.parametrize(("column", "index"), [("image", 0), ("label", 3)])
@pytest.mark.parametrize("kind", ["absolute", "up", "link", "http", "file", "zip", "hub", "null"])
def test_rows_cannot_open_what_is_not_the_data_sets(
    tmp_path: Path, server: tuple[str, list[str]], kind: str, index: int, column: str
) -> None:
    address, asked = server
    secret = tmp_path / "secret.png"
    secret.write_bytes(IMAGE if column == "image" else MASK)
    root = tmp_path / "data"
    root.mkdir()
    (root / "link.png").symlink_to(secret)
    path = {
        "absolute": str(secret),
        "up": "../secret.png",
        "link": "link.png",
        "http": f"{address}/x.png",
        "file": f"file://{secret}",
        "zip": f"zip://x.png::{address}/x.zip",
        "hub": "hf://datasets/other/private/x.png",
        "null": "a\0b",
    }[kind]
    make(root, index, **{column: {"bytes": None, "path": path}})
    for streaming in (False, True):
        with pytest.raises(UserError, match="which is not a file of the data set") as error:
            [list(rows) for rows in load_dataset(config(root, streaming))[0].values()]
        assert f"split train, row {index}" in str(error.value)
    with pytest.raises(UserError, match="which is not a file of the data set"):
        check_data(config(root), quick=True)
    assert asked == []


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("kind", ["http", "up", "absolute", "zip", "folder"])
def test_a_readme_cannot_have_opened_what_is_not_the_data_sets(
    tmp_path: Path, server: tuple[str, list[str]], kind: str, name: str
) -> None:
    address, asked = server
    outside = make(tmp_path / "outside") / "train-00000-of-00001.parquet"
    path = {
        "http": f"{address}/x.parquet",
        "up": f"../outside/{outside.name}",
        "absolute": str(outside),
        "zip": f"zip://x.parquet::{address}/x.zip",
        "folder": "../outside",
    }[kind]
    files = f"data_dir: {path}" if kind == "folder" else f"data_files: [{{split: train, path: ['{path}']}}]"
    text = f"configs:\n- config_name: default\n  {files}\n"
    root = make(tmp_path / "data")
    (root / name).write_text(f"---\n{text}---\n# Data\n" if name == "README.md" else text)
    for streaming in (False, True):
        with pytest.raises(UserError, match="which are not files of the data set"):
            load_dataset(config(root, streaming))
    assert asked == []


def test_a_readme_may_name_the_data_sets_own_files(tmp_path: Path) -> None:
    root = make(tmp_path / "data")
    configs = "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train-*.parquet\n"
    (root / "README.md").write_text(f"---\nlicense: mit\n{configs}---\n# Data\n")
    assert sum(map(len, load_dataset(config(root))[0].values())) == len(IMAGES)


def test_another_column_is_never_decoded(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    address, asked = server
    for index in (0, 3):
        root = make(tmp_path / str(index), index, other={"bytes": None, "path": f"{address}/other.png"})
        for streaming in (False, True):
            data, _ = load_dataset(config(root, streaming))
            assert sum(len(list(rows)) for rows in data.values()) == 60
    assert asked == []


@pytest.mark.parametrize("streaming", [False, True])
def test_files_of_the_data_set_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    """By a path from the data set's folder, wherever the process is, and by an absolute one."""
    root = tmp_path / "data"
    (root / "files").mkdir(parents=True)
    (root / "files" / "a.png").write_bytes(png(Image.new("RGB", SIZE, (99, 2, 3))))
    (root / "files" / "m.png").write_bytes(png(Image.new("L", SIZE, 0)))
    mask = {"bytes": None, "path": str(root / "files" / "m.png")}
    make(root, image={"bytes": None, "path": "files/a.png"}, label=mask)
    monkeypatch.chdir(tmp_path)
    rows = [row for part in load_dataset(config(root, streaming))[0].values() for row in part]
    labels = {row["image"].getpixel((0, 0))[0]: int(np.max(row["label"])) for row in rows}
    assert labels == {red: 1 for red in range(60) if red != 3} | {99: 0}


@pytest.mark.parametrize("column", ["image", "label"])
@pytest.mark.parametrize(
    ("path", "said"), [(None, "the cell is empty; fill it, or remove the row"), ("no.png", "which is not there")]
)
def test_cells_without_a_file_are_named(tmp_path: Path, column: str, path: str | None, said: str) -> None:
    root = make(tmp_path / "data", **{column: {"bytes": None, "path": path}})
    for streaming in (False, True):
        with pytest.raises(UserError, match=said) as error:
            [list(rows) for rows in load_dataset(config(root, streaming))[0].values()]
        assert "split train, row 3" in str(error.value)


def test_a_folder_of_images_with_a_table(tmp_path: Path) -> None:
    """What `datasets` makes of image files, whose absolute paths it writes into the rows."""
    root = tmp_path / "data"
    (root / "train").mkdir(parents=True)
    lines = ["file_name,label_file_name"]
    for index, content in enumerate(IMAGES):
        (root / "train" / f"{index}.png").write_bytes(content)
        (root / "train" / f"{index}_mask.png").write_bytes(MASK)
        lines.append(f"{index}.png,{index}_mask.png")
    (root / "train" / "metadata.csv").write_text("\n".join(lines))
    (root / "classes.txt").write_text("sky\nroad\n")
    for streaming in (False, True):
        rows = [row for part in load_dataset(config(root, streaming))[0].values() for row in part]
        assert sorted(row["image"].getpixel((0, 0))[0] for row in rows) == list(range(60))


def test_places_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", tmp_path / "extracted")
    blobs, snapshot = (tmp_path / "datasets--me--data" / name for name in ("blobs", "snapshots/abc"))
    for folder in (blobs, snapshot, tmp_path / "datasets--me--other"):
        folder.mkdir(parents=True)
    (blobs / "1234").write_bytes(IMAGE)
    (snapshot / "a.png").symlink_to(blobs / "1234")
    (tmp_path / "datasets--me--other" / "b.png").write_bytes(IMAGE)
    files = AllowedFiles.of_repo("me/data")
    assert files.find(str(snapshot / "a.png"), "x") == str(blobs / "1234")
    for good in ("hf://datasets/me/data@abc/train/a.png", "zip://a/b.png::hf://datasets/me/data@abc/train.zip"):
        assert files.find(good, "x") == good
    for bad in (
        str(tmp_path / "datasets--me--other" / "b.png"),
        "hf://datasets/me/other@abc/a.png",
        "hf://datasets/me/data@abc/../../other/a.png",
        "hf://datasets/me/data/a.png::http://127.0.0.1/x",
        "simplecache::hf://datasets/me/data/a.png",
        "zip://a.png::http://127.0.0.1/x.zip",
    ):
        with pytest.raises(UserError, match="which is not a file of the data set"):
            files.find(bad, "x")


def test_rows_that_the_user_has_made_are_the_users(tmp_path: Path) -> None:
    for name, data in (("a.png", IMAGE), ("m.png", MASK)):
        (tmp_path / name).write_bytes(data)
    cells = {"image": [str(tmp_path / "a.png")], "label": [str(tmp_path / "m.png")], "name": ["a"]}
    rows = datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())
    rows = rows.cast_column("label", datasets.Image())
    transform = TrainTransform(TransformsConfig(size=32), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    assert TrainSet(rows, transform)[0]["pixel_values"].shape == (3, 32, 32)
