"""Places that cannot be used: said before anything long, with what to do."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest

import hfseg.data.workers
import hfseg.runs.folder
from hfseg import UserError, run
from hfseg.data import cache_folder, check_shared_memory
from hfseg.errors import WriteError
from hfseg.files import LOCK, LockedError, locked, write_json
from hfseg.hub import public_files
from hfseg.publishing import discard_results, write_pages
from hfseg.publishing.push_files import check_pushable, files_to_push
from hfseg.study.process import PARENT
from tests.builders import config_of
from tests.conftest import REPOSITORY

# The module without what comes with its packages, which takes seconds to import.
PROGRAM = """
import sys, time, types
for name in ("hfseg", "hfseg.study"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [f"{sys.argv[1]}/{name.replace('.', '/')}"]
from hfseg.study.process import end_with_parent
end_with_parent()
print(flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("place", ["file/cache", "file"])
def test_a_cache_that_cannot_be_written(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / place))
    with pytest.raises(UserError, match=r"cannot be written.*Set HF_DATASETS_CACHE, or HF_HOME, to a folder"):
        cache_folder()


def test_too_little_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hfseg.data.workers, "SHARED_MEMORY", tmp_path)
    check_shared_memory(0, 1 << 60)
    check_shared_memory(2, 1)
    with pytest.raises(UserError, match=r"MiB free\. Set train\.dataloader_num_workers=0"):
        check_shared_memory(2, 1 << 60)


def test_two_runs_in_one_folder(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hfseg.runs.folder, "PATIENCE", 0)
    config = config_of(tmp_path / "run", pets)
    with locked(tmp_path / "run", "output_dir"), pytest.raises(LockedError, match="choose another output_dir"):
        run(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_pages_of_a_folder_that_has_been_removed(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot be written.*has been removed"):
        write_pages(tmp_path / "run")


def test_scores_that_the_disk_does_not_let_go(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").mkdir()  # which nobody can remove as a file
    with pytest.raises(WriteError, match="cannot be written"):
        discard_results(tmp_path)


def test_the_lock_is_not_published(finished_run: Path) -> None:
    assert (finished_run / LOCK).exists()
    assert LOCK not in files_to_push(check_pushable(finished_run), "me/tiny")


def test_a_run_ends_with_its_study() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(REPOSITORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {PARENT: "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        process.stdin.close()  # as the system does for a study that is killed
        began = time.monotonic()
        assert process.wait(30) == 1
        assert time.monotonic() - began < 10


def test_paths_of_any_script_are_not_published(tmp_path: Path) -> None:
    place = tmp_path / "\u6570\u636e"
    write_json(tmp_path / "provenance.json", {"command": f"python run_seg.py data.root={place}/camvid"})
    files = public_files({"provenance.json": tmp_path / "provenance.json"}, {str(place): "<root>"})
    assert json.loads(files["provenance.json"]) == {"command": "python run_seg.py data.root=<root>/camvid"}
