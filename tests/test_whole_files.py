"""A file is the old one or the new one, whole."""

from pathlib import Path

import pytest

from hfseg.whole_files import write_json, write_text, written_whole


def stop_in_the_middle(path: Path) -> None:
    with written_whole(path) as partial:
        partial.write_text("ne")
        raise RuntimeError("no disk")


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="no disk"):
        stop_in_the_middle(path)
    assert path.read_text() == "old"
    with written_whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(ValueError, match="nan"):
        write_json(tmp_path / "scores.json", {"mean_iou": float("nan")})
    assert list(tmp_path.iterdir()) == [path]
