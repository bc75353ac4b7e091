"""Shared set-up. The environment is set before anything imports huggingface_hub or datasets, which read it then."""

import os
import tempfile

# A closed port on loopback: an accidental download fails at once instead of hanging.
os.environ.update(
    HF_ENDPOINT="http://127.0.0.1:9",
    HF_HOME=tempfile.mkdtemp(prefix="hfseg-tests-"),
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_OFFLINE="1",
    NO_PROXY="127.0.0.1",
    OMP_WAIT_POLICY="passive",  # spinning threads bring a shared two-core machine to a halt
    TQDM_DISABLE="1",
)

from pathlib import Path

import pytest
import torch

from hfseg import LabelSet
from hfseg.data.synthetic import write_synthetic_pet

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set in the official layout. Tests that damage it work on a copy."""
    root = tmp_path_factory.mktemp("pets") / "drawn"
    write_synthetic_pet(root, num_trainval=24, num_test=6, size=64, seed=1)
    return root


@pytest.fixture
def labels() -> LabelSet:
    return LabelSet(["pet", "background", "boundary"])
