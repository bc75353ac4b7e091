"""The real client against the loopback Hub: what the tests of publishing rest upon."""

from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, snapshot_download

from tests.hub_server import HubServer

REPO = "tester/model"


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card, a small file in a folder and a large one."""
    root = tmp_path / "upload"
    (root / "figures").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (root / "figures" / "a.txt").write_text("figure")
    (root / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(300_000))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_folder_there_and_back(hub: HubServer, api: HfApi, folder: Path, tmp_path: Path) -> None:
    api.create_repo(REPO, private=True)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.files(REPO) == contents(folder)
    assert len(hub.repo(REPO).history()) == 2
    head = hub.repo(REPO).head
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.repo(REPO).head == head  # nothing has changed
    found = Path(snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    assert found.name == head.oid
    assert {path: (found / path).read_bytes() for path in contents(folder)} == contents(folder)
