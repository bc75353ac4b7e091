"""A file is the old one or the new one, whole; and what a disk refuses is said with its remedy."""

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hfseg.errors import WriteError
from hfseg.files import (
    LOCK,
    LockedError,
    complete_folder,
    locked,
    remove_leftovers,
    write_json,
    write_text,
    writing,
    written_whole,
)
from hfseg.training.checkpoints import commit, make_partial


def stop_in_the_middle(path: Path) -> None:
    with written_whole(path) as partial:
        partial.write_text("ne", encoding="utf-8")
        raise RuntimeError("no disk")


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="no disk"):
        stop_in_the_middle(path)
    assert path.read_text(encoding="utf-8") == "old"
    with written_whole(path) as partial:
        partial.write_text("new", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "scores.json", {"mean_iou": float("nan")})
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_any_script_can_be_read_in_json(tmp_path: Path) -> None:
    tree = {"eval_iou_\u80cc\u666f": 0.5, "model": "no text: \udcff"}  # as Python has a file name's odd bytes
    write_json(tmp_path / "a.json", tree)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "iou_\u80cc\u666f" in text
    assert json.loads(text) == tree


def test_links_are_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear", encoding="utf-8")
    ours = tmp_path / "ours"
    ours.mkdir()
    for name in (".settings.json.partial", "settings.json", LOCK):
        (ours / name).symlink_to(theirs / "letter.txt")
    (ours / ".checkpoint.partial").symlink_to(theirs)
    write_text(ours / "settings.json", "{}")
    make_partial(ours / ".checkpoint.partial")
    with locked(ours, "output_dir"):
        pass
    assert not (ours / ".checkpoint.partial").is_symlink()
    remove_leftovers(ours)
    assert (theirs / "letter.txt").read_text(encoding="utf-8") == "dear"
    assert {path.name for path in ours.iterdir()} == {"settings.json", LOCK}


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_permissions_follow_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        root = tmp_path / "root"
        weights = {"weight": torch.zeros(2)}
        with locked(root, "output_dir"), written_whole(root / "model.safetensors") as partial:
            save_file(weights, partial)
        with complete_folder(root / "model") as building:
            (building / "parts").mkdir()
            save_file(weights, building / "parts" / "model.safetensors")
        make_partial(root / "partial")
        save_file(weights, root / "partial" / "model.safetensors")
        commit(root / "partial", root / "checkpoint-1")
    finally:
        os.umask(before)
    found = {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}
    assert found == {0o666 & ~umask}
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_dir()} == {0o777 & ~umask}


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Make room on its disk"),
        (errno.EDQUOT, "Make room on its disk"),
        (errno.EROFS, "Make its folder writable"),
        (errno.EACCES, "Make its folder writable"),
        (errno.ENOENT, "has been removed"),
        (errno.EIO, "See whether its disk works"),
    ],
)
def test_one_remedy_for_one_cause(number: int, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=remedy) as caught, writing(tmp_path / "scores.json"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in str(caught.value)
    assert str(tmp_path / "scores.json") in str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no disk can be mounted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_left_as_it_was(small_disk: Path) -> None:
    tensor = torch.zeros(1 << 20)

    def write_folder() -> None:
        with complete_folder(small_disk / "model") as partial:
            (partial / "config.json").write_bytes(bytes(1 << 21))

    def write_weights() -> None:
        with written_whole(small_disk / "model.safetensors") as partial:
            save_file({"weight": tensor}, partial)

    def write_optimizer() -> None:
        with written_whole(small_disk / "optimizer.pt") as partial:
            torch.save(tensor, partial)

    for write in (write_folder, write_weights, write_optimizer, lambda: write_text(small_disk / "x", "x" * (1 << 21))):
        with pytest.raises(WriteError, match="Make room on its disk"):
            write()
        assert not list(small_disk.iterdir())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WriteError, match="Make its folder writable"):
        write_text(small_disk / "x", "x")
    with pytest.raises(WriteError, match="Make its folder writable"), locked(small_disk, "output_dir"):
        pass


def test_a_folder_that_is_removed(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="has been removed"):
        write_text(tmp_path / "gone" / "scores.json", "{}")
    with pytest.raises(WriteError, match="has been removed"), complete_folder(tmp_path / "a" / "model"):
        shutil.rmtree(tmp_path / "a")


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "output_dir"),
        pytest.raises(LockedError, match=r"Another process is writing to .* another output_dir"),
        locked(tmp_path, "output_dir"),
    ):
        pass
    with locked(tmp_path, "output_dir"):
        pass
