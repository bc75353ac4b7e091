"""Zip archives: whole or not at all, and nothing in them that a data set has no use for."""

import random
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hfseg import UserError
from hfseg.data.archive import extract_archives

MEMBERS = {f"part/{index}.bin": bytes(range(256)) * 20 for index in range(4)}
LIMIT = 1_000_000


def pack(path: Path, members: dict[str, bytes] = MEMBERS, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def unpacked(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(archive: Path, folder: Path, limit: int = LIMIT) -> str:
    """What the error says; nothing may be left of the attempt."""
    with pytest.raises(UserError) as error:
        extract_archives([archive], folder, limit)
    assert str(archive) in str(error.value)
    assert not folder.exists()
    assert not list(folder.parent.glob("*.partial"))
    return str(error.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_everything_or_what_is_wanted(tmp_path: Path, compression: int) -> None:
    archive = pack(tmp_path / "a.zip", MEMBERS | {"license.txt": b"", "part/empty/": b""}, compression)
    assert unpacked(extract_archives([archive], tmp_path / "all", LIMIT)) == MEMBERS | {"license.txt": b""}
    some = extract_archives([archive], tmp_path / "some", 2 * 5120, re.compile(r"part/[12]\.bin$"))
    assert unpacked(some) == {name: MEMBERS[name] for name in ("part/1.bin", "part/2.bin")}


def test_what_is_there_is_left_alone_and_a_killed_attempt_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".out-0.partial" / "part").mkdir(parents=True)
    (tmp_path / ".out-0.partial" / "part" / "stale.bin").write_bytes(b"x")
    archive = pack(tmp_path / "a.zip")
    assert unpacked(extract_archives([archive], tmp_path / "out", LIMIT)) == MEMBERS
    assert not (tmp_path / ".out-0.partial").exists()
    archive.unlink()
    assert unpacked(extract_archives([archive], tmp_path / "out", LIMIT)) == MEMBERS


def test_truncated_anywhere(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.zip").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "a.zip").write_bytes(whole[:length])
        assert "is truncated or corrupt" in refused(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_bytes_are_an_error_or_do_not_matter(tmp_path: Path) -> None:
    archive = pack(tmp_path / "é.zip", {name.replace("part", "pärt"): content for name, content in MEMBERS.items()})
    whole, rng, failures = archive.read_bytes(), random.Random(0), 0
    for attempt in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(whole))] = rng.randrange(256)
        archive.write_bytes(damaged)
        try:
            contents = unpacked(extract_archives([archive], tmp_path / str(attempt), LIMIT)).values()
        except UserError:  # and nothing else
            failures += 1
        else:
            assert set(contents) <= set(MEMBERS.values())
    assert failures > 300


@pytest.mark.parametrize(
    "name", ["../escaped", "part/../../escaped", "/escaped", "..\\escaped", "C:\\escaped", "C:escaped", "\\\\h\\s\\e"]
)
def test_members_that_lead_outside(tmp_path: Path, name: str) -> None:
    (tmp_path / "inner").mkdir()
    said = refused(pack(tmp_path / "a.zip", MEMBERS | {name: b"x"}), tmp_path / "inner" / "out")
    assert f"member {name!r} leads outside of the folder" in said
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(tmp_path: Path, kind: int) -> None:
    link = zipfile.ZipInfo("part/link")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    assert "'part/link' is a link or a device" in refused(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_inflate_without_a_bound(tmp_path: Path, compression: int) -> None:
    said = refused(pack(tmp_path / "a.zip", compression=compression), tmp_path / "out")
    assert f"compression method {compression}" in said


def edit(archive: Path, change: Callable[[bytearray, int], None]) -> None:
    """Changes the central directory's entry of the first member, at the offset given."""
    content = bytearray(archive.read_bytes())
    change(content, content.index(b"PK\1\2"))
    archive.write_bytes(content)


def test_encrypted(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip")
    edit(archive, lambda content, entry: struct.pack_into("<H", content, entry + 8, 1))
    assert "is encrypted" in refused(archive, tmp_path / "out")


def test_a_bomb_that_declares_its_size(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"bomb": bytes(50_000_000)})
    assert archive.stat().st_size < 100_000
    assert "unpacks to more than 1,000,000 bytes" in refused(archive, tmp_path / "out")


def test_many_members_count_together(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip")
    assert "unpacks to more than 20,479 bytes" in refused(archive, tmp_path / "out", 4 * 5120 - 1)
    extract_archives([archive], tmp_path / "out", 4 * 5120)


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"bomb": bytes(50_000_000)})
    edit(archive, lambda content, entry: struct.pack_into("<I", content, entry + 24, 1000))
    assert "is truncated or corrupt" in refused(archive, tmp_path / "out")


def test_the_same_name_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("part/1", b"one")
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("part/1", b"two")
    assert "Could not unpack" in refused(tmp_path / "a.zip", tmp_path / "out")
