import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import SegformerImageProcessor

from hfseg import EvalSet, TrainSet, TrainTransform, TransformsConfig
from hfseg.data import EncodedRows
from hfseg.data.cache import DecodedRows
from hfseg.errors import WriteError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DECODE = """
import datasets, sys
from hfseg.data.cache import DecodedRows
print(len(DecodedRows(datasets.load_from_disk(sys.argv[1]))))
"""


def write_split(folder: Path, count: int, size: int, suffix: str = "jpg", seed: int = 0) -> datasets.Dataset:
    """Images and label maps of different sizes, as an Arrow file on the disk that names them."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[str]] = {"image": [], "label": [], "name": []}
    (folder / "files").mkdir(parents=True)
    for index in range(count):
        shape = (size + index % 7, size + index % 5)
        image, label = folder / "files" / f"{index}.{suffix}", folder / "files" / f"{index}_label.png"
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 3, shape, dtype=np.uint8)).save(label)
        for key, value in (("image", str(image)), ("label", str(label)), ("name", str(index))):
            rows[key].append(value)
    features = {"image": datasets.Image(mode="RGB"), "label": datasets.Image(), "name": datasets.Value("string")}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).save_to_disk(folder / "arrow")
    return datasets.load_from_disk(folder / "arrow")


def copies(folder: Path) -> list[Path]:
    return sorted((folder / "arrow").glob("cache-*.arrow"))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_cached_samples_are_the_uncached_ones(tmp_path: Path, suffix: str) -> None:
    data = write_split(tmp_path, count=6, size=300, suffix=suffix)
    transform = TrainTransform(TransformsConfig(size=32, scale=(0.8, 6)), MEAN, STD)  # down to an eighth
    plain, cached = TrainSet(data, transform, seed=1), TrainSet(data, transform, seed=1, cache=True)
    reductions = set()
    for epoch in range(5):
        for samples in (plain, cached):
            samples.set_epoch(epoch)
        for index in range(len(data)):
            assert plain[index]["pixel_values"].equal(cached[index]["pixel_values"])
            assert plain[index]["labels"].equal(cached[index]["labels"])
            rng = np.random.default_rng([epoch, index])
            reductions.add(transform.draw(plain.rows[index].label, rng).crop.reduction)
    assert len(reductions) > 2
    processor = SegformerImageProcessor(size={"height": 64, "width": 64})
    for one, other in zip(EvalSet(data, processor), EvalSet(data, processor, cache=True), strict=True):
        assert one["name"] == other["name"]
        assert one["pixel_values"].equal(other["pixel_values"])
        assert one["labels"].equal(other["labels"])
    assert len(copies(tmp_path)) == 1


def test_a_copy_is_made_once_and_other_data_get_another(tmp_path: Path) -> None:
    data = write_split(tmp_path, count=4, size=32)
    first = DecodedRows(data)
    written = copies(tmp_path)[0].stat().st_mtime_ns
    for path in (tmp_path / "files").iterdir():
        path.unlink()  # nothing is decoded again
    again = DecodedRows(data)
    assert copies(tmp_path)[0].stat().st_mtime_ns == written
    np.testing.assert_array_equal(again[3].pixels(), first[3].pixels())
    other = write_split(tmp_path / "other", count=4, size=32, seed=1)
    expected = EncodedRows(other)[2].pixels()
    np.testing.assert_array_equal(DecodedRows(other)[2].pixels(), expected)
    assert not np.array_equal(first[2].pixels(), expected)


def test_data_in_memory_are_cached_in_memory(tmp_path: Path) -> None:
    data = write_split(tmp_path, count=3, size=32)
    in_memory = datasets.Dataset.from_dict(data.cast_column("image", datasets.Image(decode=False)).to_dict())
    in_memory = in_memory.cast(data.features)
    assert not in_memory.cache_files
    np.testing.assert_array_equal(DecodedRows(in_memory)[1].pixels(), EncodedRows(data)[1].pixels())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pixels_lie_in_the_mapped_file(tmp_path: Path) -> None:
    row = DecodedRows(write_split(tmp_path, count=2, size=64))[1]
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "/arrow/cache-" in line]
    spans = [[int(edge, 16) for edge in words[0].split("-")] for words in maps]
    for array in (row.pixels(), row.pixels(2), row.label):
        address = array.__array_interface__["data"][0]
        assert any(start <= address < stop for start, stop in spans)
        assert not array.flags.writeable


def test_a_full_disk_keeps_no_part_of_a_copy(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    data = write_split(tmp_path, count=2, size=64)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(WriteError, match=r"decoded cannot be written.*Make room"):
            DecodedRows(data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "arrow").glob("tmp*"))
    assert len(DecodedRows(data)) == 2


def test_a_killed_process_and_two_at_once_leave_one_whole_copy(tmp_path: Path) -> None:
    data = write_split(tmp_path, count=160, size=256, suffix="png")
    command = [sys.executable, "-c", DECODE, str(tmp_path / "arrow")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2))
    deadline = time.monotonic() + 60
    while not any((tmp_path / "arrow").glob("tmp*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    first.kill()  # it writes, or waits for the one that does
    first.wait()
    assert second.communicate(timeout=60)[0].split() == [b"160"]
    (copy,) = copies(tmp_path)
    written = copy.stat().st_mtime_ns
    rows, expected = DecodedRows(data), EncodedRows(data)
    assert copy.stat().st_mtime_ns == written
    for index in (0, 80, 159):
        np.testing.assert_array_equal(rows[index].pixels(), expected[index].pixels())
        np.testing.assert_array_equal(rows[index].label, expected[index].label)
