"""The submission, judged by cityscapesscripts' own evaluation."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfseg import UserError
from hfseg.data.cityscapes import CityscapesReader
from hfseg.data.cityscapes_submission import export_submission
from tests.extras import needs

needs("cityscapes")

from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as evaluation  # noqa: E402

NAMES = ["frankfurt_000000_000294", "frankfurt_000000_000295", "bad-honnef_000123_000019"]


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Official ground truth: label ids 0..33 in blocks, all of them in the first file."""
    folder, rng = tmp_path_factory.mktemp("gtFine"), np.random.default_rng(0)
    paths = [folder / f"{name}_gtFine_labelIds.png" for name in NAMES]
    for path in paths:
        blocks = np.resize(rng.permutation(34), (16, 32)).astype(np.uint8)
        Image.fromarray(blocks.repeat(64, 0).repeat(64, 1)).save(path)
    return paths


def perfect(truths: list[Path]) -> Iterator[np.ndarray]:
    """Train ids as a perfect model would give them: some class where none counts."""
    for path in truths:
        ids = CityscapesReader()(path).astype(np.int64)
        yield np.where(ids == 255, 3, ids)


def score(truths: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """The mean IoU of the official script, which also has to find the files by their names."""
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(folder))
    arguments = evaluation.args
    settings = {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}
    for name, value in (settings | {"predictionPath": None, "predictionWalk": None}).items():
        monkeypatch.setattr(arguments, name, value)
    found = [evaluation.getPrediction(arguments, str(path)) for path in truths]
    result = evaluation.evaluateImgLists(found, [str(path) for path in truths], arguments)
    return float(result["averageScoreClasses"])


def test_a_perfect_submission_scores_one(truths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_submission(perfect(truths), NAMES, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(f"{name}_pred_labelIds.png" for name in NAMES)
    assert os.listdir(tmp_path) == ["out"]
    assert Image.open(tmp_path / "out" / f"{NAMES[0]}_pred_labelIds.png").mode == "L"
    assert score(truths, tmp_path / "out", monkeypatch) == 1.0


def test_a_wrong_submission_does_not(truths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    export_submission([(ids + 1) % 19 for ids in perfect(truths)], NAMES, tmp_path / "out")
    assert score(truths, tmp_path / "out", monkeypatch) < 0.05


def refused(predictions: list[np.ndarray], names: list[str], folder: Path) -> str:
    with pytest.raises(UserError) as error:
        export_submission(predictions, names, folder)
    assert not folder.exists()
    assert not list(folder.parent.iterdir()), "something half-written is left"
    return str(error.value)


GOOD = np.zeros((1024, 2048), np.uint8)


@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (np.full_like(GOOD, 255), "of 255..255"),
        (np.full_like(GOOD, 19), "of 19..19"),
        (np.full(GOOD.shape, -1, np.int64), "of -1..-1"),
        (GOOD.astype(np.float32), "float32"),
        (GOOD[:512, :1024], "(512, 1024)"),
        (GOOD.T, "(2048, 1024)"),
        (GOOD[None], "(1, 1024, 2048)"),
    ],
)
def test_wrong_predictions_are_refused(tmp_path: Path, prediction: np.ndarray, said: str) -> None:
    message = refused([GOOD, prediction], NAMES[:2], tmp_path / "out")
    assert said in message
    assert NAMES[1] in message


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([NAMES[0], NAMES[0]], "comes twice"),
        ([NAMES[0], "../../escaped_000000_000000"], "not an official name"),
        ([NAMES[0], "berlin_1_2"], "not an official name"),
        (NAMES[:1], "not as many names"),
        (NAMES, "not as many names"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, names: list[str], said: str) -> None:
    assert said in refused([GOOD, GOOD], names, tmp_path / "out")


def test_what_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "old_pred_labelIds.png").write_bytes(b"x")
    with pytest.raises(UserError, match="holds something already"):
        export_submission([GOOD], NAMES[:1], tmp_path)
    assert os.listdir(tmp_path) == ["old_pred_labelIds.png"]
