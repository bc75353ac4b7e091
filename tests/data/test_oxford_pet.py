import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hfseg import DataConfig, UserError, load_dataset
from hfseg.data import Pair, oxford_pet
from hfseg.data.oxford_pet import breed, prepare_root, read_list
from hfseg.data.splits import hold_out


@pytest.fixture
def copy(pets: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pets, tmp_path / "pets"))


def load(root: Path | None, boundary: str = "class") -> datasets.DatasetDict:
    return load_dataset(DataConfig(name="oxford_pet", root=root, boundary=boundary))[0]


def pack(root: Path, folder: Path) -> Path:
    """The two official archives of a folder."""
    folder.mkdir()
    for part in ("images", "annotations"):
        with tarfile.open(folder / f"{part}.tar.gz", "w:gz") as tar:
            tar.add(root / part, part)
    return folder


def assert_same_as_files(data: datasets.DatasetDict, root: Path, boundary: str = "class") -> None:
    """Pixel by pixel against an independent reading of the trimaps."""
    table = {1: 0, 2: 1, 3: 2 if boundary == "class" else 255}
    for split, rows in data.items():
        for row in rows:
            trimap = np.array(Image.open(root / "annotations" / "trimaps" / f"{row['name']}.png"))
            expected = np.vectorize(table.get)(trimap)
            assert np.array_equal(np.array(row["label"]), expected), (split, row["name"])
            assert row["image"].mode == "RGB"
            assert row["image"].size == row["label"].size


@pytest.mark.parametrize("boundary", ["class", "ignore"])
def test_labels_are_the_trimaps(pets: Path, boundary: str) -> None:
    data, labels = load_dataset(DataConfig(name="oxford_pet", root=pets, boundary=boundary))
    assert list(labels.names) == ["pet", "background", "boundary"][: 3 if boundary == "class" else 2]
    assert_same_as_files(data, pets, boundary)


def test_splits_are_the_lists_with_a_tenth_of_each_breed_held_out(pets: Path) -> None:
    data = load(pets)
    names = {split: list(rows["name"]) for split, rows in data.items()}
    assert names["test"] == read_list(pets, "test")
    assert sorted(names["train"] + names["validation"]) == sorted(read_list(pets, "trainval"))
    assert not set(names["train"]) & set(names["validation"])
    official = [f"{breed}_{index}" for breed in ("Abyssinian", "great_pyrenees", "pug") for index in range(100)]
    pairs = [Pair(name, Path(name), None) for name in official]
    train, validation = hold_out(pairs, breed)
    assert len(train) == 270
    for each in ("Abyssinian", "great_pyrenees", "pug"):
        assert sum(pair.name.startswith(each) for pair in validation) == 10
    assert hold_out(pairs[::-1], breed)[1] == validation[::-1]


def test_archives_give_the_same_as_the_folder(pets: Path, tmp_path: Path) -> None:
    assert_same_as_files(load(pack(pets, tmp_path / "archives")), pets)


def test_the_real_sets_oddities(copy: Path) -> None:
    first, second = read_list(copy, "trainval")[:2]
    Image.open(copy / "images" / f"{first}.jpg").convert("RGBA").save(copy / "images" / f"{first}.jpg", format="PNG")
    image = Image.open(copy / "images" / f"{second}.jpg").convert("P")
    image.save(copy / "images" / f"{second}.jpg", format="GIF")
    third = copy / "annotations" / "trimaps" / f"{read_list(copy, 'trainval')[2]}.png"
    Image.fromarray(np.array(Image.open(third)).astype(np.uint16)).save(third)
    lines = (copy / "annotations" / "test.txt").read_text()
    (copy / "annotations" / "test.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + lines, encoding="utf-8-sig")
    (copy / "images" / "Abyssinian_999.jpg").write_text("not in any list")
    (copy / "images" / "Abyssinian_100.mat").write_text("stray")
    (copy / "annotations" / "trimaps" / f"._{first}.png").write_bytes(b"\0\5\26\7")
    assert_same_as_files(load(copy), copy)


def damage_missing_mask(root: Path, name: str) -> str:
    (root / "annotations" / "trimaps" / f"{name}.png").unlink()
    return f"{name}.png is missing"


def damage_truncated_image(root: Path, name: str) -> str:
    path = root / "images" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    return f"{name}.jpg cannot be read"


def damage_not_an_image(root: Path, name: str) -> str:
    (root / "images" / f"{name}.jpg").write_text("<html>")
    return f"{name}.jpg cannot be read"


def damage_size(root: Path, name: str) -> str:
    path = root / "annotations" / "trimaps" / f"{name}.png"
    Image.open(path).resize((10, 20)).save(path)
    return "10x20"


def damage_value(root: Path, name: str) -> str:
    path = root / "annotations" / "trimaps" / f"{name}.png"
    values = np.array(Image.open(path))
    values[3, 4] = 17
    Image.fromarray(values).save(path)
    return "holds [17]"


def damage_rgb_mask(root: Path, name: str) -> str:
    path = root / "annotations" / "trimaps" / f"{name}.png"
    Image.open(path).convert("RGB").save(path)
    return "3 channels"


def damage_empty_list(root: Path, name: str) -> str:
    (root / "annotations" / "test.txt").write_text("# nothing\n")
    return "test split is empty"


def damage_no_list(root: Path, name: str) -> str:
    (root / "annotations" / "trainval.txt").unlink()
    return "trainval.txt is missing"


def damage_leak(root: Path, name: str) -> str:
    with (root / "annotations" / "test.txt").open("a") as file:
        file.write(f"{name} 1 1 1\n")
    return f"more than once, such as {name}"


def damage_repeated(root: Path, name: str) -> str:
    with (root / "annotations" / "trainval.txt").open("a") as file:
        file.write(f"{name} 1 1 1\n")
    return f"more than once, such as {name}"


def damage_encoding(root: Path, name: str) -> str:
    (root / "annotations" / "test.txt").write_bytes("Abyssinian_é 1 1 1\n".encode("latin-1"))
    return "cannot be read as UTF-8"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_repair_is_noticed(copy: Path, pets: Path, damage: Callable[[Path, str], str]) -> None:
    assert_same_as_files(load(copy), copy)  # a cache of the healthy folder exists, and must not be used
    said = damage(copy, read_list(copy, "trainval")[3])
    with pytest.raises(UserError) as error:
        load(copy)
    assert said in str(error.value)
    assert str(copy) in str(error.value)
    shutil.copytree(pets, copy, dirs_exist_ok=True)
    assert_same_as_files(load(copy), copy)


def test_a_changed_mask_is_read_again(copy: Path) -> None:
    load(copy)
    path = copy / "annotations" / "trimaps" / f"{read_list(copy, 'test')[0]}.png"
    values = np.array(Image.open(path))
    values[:] = 3
    Image.fromarray(values).save(path)
    assert_same_as_files(load(copy), copy)


def test_missing_folder_and_missing_archive(tmp_path: Path, pets: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load(tmp_path / "nowhere")
    archives = pack(pets, tmp_path / "archives")
    (archives / "annotations.tar.gz").unlink()
    with pytest.raises(UserError, match=r"missing: annotations\.tar\.gz"):
        load(archives)


def test_truncated_archive_leaves_nothing_behind(tmp_path: Path, pets: Path) -> None:
    archives, cache = pack(pets, tmp_path / "archives"), tmp_path / "cache"
    whole = (archives / "images.tar.gz").read_bytes()
    (archives / "images.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"images\.tar\.gz is truncated or corrupt"):
        prepare_root(archives, cache)
    assert not [path for path in (cache / "oxford_pet").iterdir() if path.is_dir()]
    (archives / "images.tar.gz").write_bytes(whole)
    assert (prepare_root(archives, cache) / "images").is_dir()


def test_hostile_archives_are_refused(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archives = pack(pets, tmp_path / "archives")
    monkeypatch.setattr(oxford_pet, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(UserError, match="unpacks to more than"):
        prepare_root(archives, tmp_path / "cache")
    monkeypatch.undo()
    with tarfile.open(archives / "images.tar.gz", "w:gz") as tar:
        tar.add(pets / "annotations" / "test.txt", "../../escaped.txt")
    with pytest.raises(UserError, match="is refused"):
        prepare_root(archives, tmp_path / "cache")
    assert not list(tmp_path.glob("**/escaped.txt"))


@pytest.fixture
def server(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The official address, on loopback: a folder with both archives."""
    folder = pack(pets, tmp_path / "served")
    handler = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: handler(*arguments, directory=str(folder))
    ) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setattr(oxford_pet, "BASE_URL", f"http://127.0.0.1:{httpd.server_port}/")
        sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in oxford_pet.MD5}
        monkeypatch.setattr(oxford_pet, "MD5", sums)
        yield folder
        httpd.shutdown()


def test_download(server: Path, tmp_path: Path) -> None:
    root = prepare_root(None, tmp_path / "cache")
    assert (root / "annotations" / "trimaps").is_dir()
    shutil.rmtree(server)  # what has arrived is not asked for again
    assert prepare_root(None, tmp_path / "cache") == root


def test_damaged_download_is_refused_and_can_be_repeated(server: Path, tmp_path: Path) -> None:
    whole = (server / "images.tar.gz").read_bytes()
    (server / "images.tar.gz").write_bytes(whole[:-1] + b"x")
    with pytest.raises(UserError, match="arrived damaged"):
        prepare_root(None, tmp_path / "cache")
    (server / "images.tar.gz").write_bytes(whole)
    assert prepare_root(None, tmp_path / "cache").is_dir()


def test_failed_download_says_what_to_do(server: Path, tmp_path: Path) -> None:
    (server / "images.tar.gz").unlink()
    with pytest.raises(UserError, match=r"Could not download .*images\.tar\.gz.*data\.root"):
        prepare_root(None, tmp_path / "cache")


def test_official_address_and_sums() -> None:
    assert oxford_pet.BASE_URL.startswith("https://")
    assert oxford_pet.MD5["images.tar.gz"] == "5c4f3ee8e5d25df40f4fd59a7f44e54c"
    assert oxford_pet.MD5["annotations.tar.gz"] == "95a8c909bbe2e81eed6a22bccdf3f68f"


def test_two_processes_prepare_at_once(pets: Path, tmp_path: Path) -> None:
    archives = pack(pets, tmp_path / "archives")
    code = (
        "import sys, pathlib, hfseg; "
        "data, _ = hfseg.load_dataset(hfseg.DataConfig(name='oxford_pet', root=pathlib.Path(sys.argv[1]))); "
        "print(len(data['train']))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", code, str(archives)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].split()[-1] for process in processes]
    assert printed[0] == printed[1] == str(len(load(pets)["train"]))


def test_real_subset_if_present() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "oxford-iiit-pet-3breeds"
    if not root.is_dir():
        pytest.skip("the real subset is not on this machine")
    data = load(root)
    assert {split: len(rows) for split, rows in data.items()} == {"train": 270, "validation": 30, "test": 298}
