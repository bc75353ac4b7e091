# ruff: noqa: E402
"""Shared set-up. The environment is set before anything imports huggingface_hub or datasets, which read it then."""

import os
import tempfile

from tests.hub.server import HubServer

HUB = HubServer().start()
HOME = tempfile.TemporaryDirectory(prefix="hfseg-tests-")
# The Hub on loopback is the only one that tests can reach: an accidental download fails at once.
os.environ.update(
    HF_ENDPOINT=HUB.endpoint,
    HF_HOME=HOME.name,
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_TOKEN=HUB.write_token,
    NO_PROXY="127.0.0.1",
    OMP_WAIT_POLICY="passive",  # spinning threads bring a shared two-core machine to a halt
    TQDM_DISABLE="1",
)

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch

from hfseg import LabelSet
from hfseg.data.drawn import write_synthetic_pet
from tests.builders import train_tiny, with_small_model

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=["lfs", "xet"])
def hub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub, by both ways of large files. Subprocesses take HF_HUB_DISABLE_XET from the environment."""
    is_lfs = request.param == "lfs"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", is_lfs)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", str(int(is_lfs)))
    HUB.reset()
    yield HUB
    assert not HUB.errors, HUB.errors[0]
    HUB.reset()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client waits for up to 23 s in all between its attempts; here it does not."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in the official layout. Tests that damage it work on a copy."""
    root = tmp_path_factory.mktemp("pets") / "drawn"
    write_synthetic_pet(root, num_trainval=24, num_test=6, size=64, seed=1)
    return root


@pytest.fixture
def labels() -> LabelSet:
    return LabelSet(["pet", "background", "boundary"])


@pytest.fixture(scope="session")
def finished_run(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with all its files. Tests that change it work on a copy."""
    return train_tiny(tmp_path_factory.mktemp("finished"), pets)


@pytest.fixture(scope="session")
def small_runs(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """That run with the weights of small models, by their kind."""
    labels, folder = LabelSet(["pet", "background", "boundary"]), tmp_path_factory.mktemp("small")
    return {kind: with_small_model(finished_run, folder, kind, labels) for kind in ("segformer", "fcn")}
