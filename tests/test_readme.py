"""What the README and docs/ show works as it stands."""

import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import transformers
import yaml
from PIL import Image
from transformers import (
    SegformerConfig,
    SegformerForImageClassification,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)
from transformers.monkey_patching import clear_patch_mapping

import hfseg
from hfseg import RunConfig
from hfseg.study import renew_readme
from scripts.config_reference import config_reference
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
REPO_URL = re.findall(r"^repo_url: (\S+)", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)[0]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def replaced(code: str, others: dict[str, str]) -> str:
    """The code with other names and smaller numbers, each of which it must have."""
    for old, new in others.items():
        assert old in code, old
        code = code.replace(old, new)
    return code


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the pages name on the Hub, and what is here instead: a data set, two models and the metric."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    rng = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    for split, number in (("train", 10), ("validation", 2)):
        rows = {
            "image": [Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)) for _ in range(number)],
            "annotation": [Image.fromarray(rng.integers(0, 3, (40, 56), dtype=np.uint8)) for _ in range(number)],
        }
        Path("photos/data").mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features).to_parquet(f"photos/data/{split}-00000-of-00001.parquet")
    sizes: dict[str, Any] = {
        "depths": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "drop_path_rate": 0.0,
        "classifier_dropout_prob": 0.0,
    }  # fmt: skip
    SegformerForImageClassification(SegformerConfig(**sizes)).save_pretrained("mit")
    SegformerForSemanticSegmentation(SegformerConfig(**sizes, num_labels=3)).save_pretrained("ade")
    for folder in ("mit", "ade"):
        SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    Path("mean_iou.py").write_text(MEAN_IOU)
    return {
        '"me/photos"': '"photos"',
        '"nvidia/mit-b0"': '"mit"',
        '"nvidia/segformer-b0-finetuned-ade-512-512"': '"ade"',
        'evaluate.load("mean_iou")': 'evaluate.load("./mean_iou.py")',
    }


# with the arguments of `evaluate`'s own, which has to be downloaded
MEAN_IOU = """
import datasets
import evaluate
import numpy as np


class MeanIoU(evaluate.Metric):
    def _info(self):
        ids = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        features = datasets.Features({"predictions": ids, "references": ids})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references, num_labels, ignore_index, reduce_labels):
        found, labels = np.asarray(predictions), np.asarray(references)
        valid = labels != ignore_index
        ious = [((found == k) & (labels == k)).sum() / (((found == k) & valid) | (labels == k)).sum()
                for k in range(num_labels)]
        return {"mean_iou": float(np.mean(ious)), "per_category_iou": np.array(ious)}
"""


def test_the_first_example_runs(stand_ins: dict[str, str]) -> None:
    code = python_of(README)[0].replace(*next(pair for pair in stand_ins.items() if "ade" in pair[1]))
    names: dict[str, Any] = {}
    try:
        exec(code, names)
        found = names["segment"](Image.new("RGB", (40, 30)))
        head = names["segment"].model.decode_head
    finally:
        clear_patch_mapping()
    assert {part["mask"].size for part in found} == {(40, 30)}
    assert type(head).__module__.startswith("hfseg."), "the fast one"


def test_our_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = 'DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 6, "size": 64})'
    exec(
        replaced(python_of(README)[1], {"max_steps=400": "max_steps=1", 'DataConfig(name="synthetic_pet")': small}), {}
    )


def test_the_program_with_one_word_changed_runs(stand_ins: dict[str, str]) -> None:
    names: dict[str, Any] = {}
    used = {old: new for old, new in stand_ins.items() if old in python_of(README)[2]}
    exec(replaced(python_of(README)[2], used | {"max_steps=400": "max_steps=4"}), names)
    assert len(used) == 2
    history = names["trainer"].state.log_history
    assert [0 <= line["eval_mean_iou"] <= 1 for line in history if "eval_loss" in line] == [True, True]


def test_the_usual_script_runs_under_both_trainers(stand_ins: dict[str, str]) -> None:
    """Of docs/training.md: without randomness the same losses and metrics, with `Trainer` and with `SegTrainer`."""
    code = python_of(REPOSITORY / "docs" / "training.md")[0]
    ours_line = "from hfseg import SegTrainer as Trainer  # the line that changed\n"
    others = {old: new for old, new in stand_ins.items() if old in code}
    others |= {"num_train_epochs=50": 'num_train_epochs=2, logging_steps=1, report_to="none"'}
    others |= {"ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25, hue=0.1)": "ColorJitter()"}
    others |= {"\nid2label = ": "\nimport transformers\n\ntransformers.set_seed(0)\nid2label = "}
    logs = []
    for line in (ours_line, "from transformers import Trainer\n"):
        names: dict[str, Any] = {}
        exec(replaced(code, others | {ours_line: line}), names)
        logs.append(names["trainer"].state.log_history)
    assert type(names["trainer"]) is transformers.Trainer
    for key in ("loss", "eval_loss", "eval_mean_iou"):
        ours, stock = ([line[key] for line in log if key in line] for log in logs)
        assert ours == pytest.approx(stock, rel=1e-4, abs=0.005 if key == "eval_mean_iou" else 0), key
        assert len(ours) == (8 if key == "loss" else 2)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 130


@each_page
def test_commands_name_files_that_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"(?:configs|scripts)/[\w/.]+\.(?:yaml|py)", text):
        assert (REPOSITORY / path).is_file(), path
    for config, overrides in re.findall(r"--config (configs/\S+\.yaml)((?: [\w.]+=\S+)*)", text):
        if "accelerate" not in config:
            RunConfig.load(REPOSITORY / config, overrides.split())


@each_page
def test_configs_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        shown = yaml.safe_load(block)
        RunConfig.from_tree({"name": "shown", "data": {"name": "synthetic_pet"}} | shown, str(page))


@each_page
def test_python_names_exist(page: Path) -> None:
    for name in re.findall(r"\bhfseg\.(\w+)\(", page.read_text()):
        assert name in hfseg.__all__, name


@each_page
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        local = re.sub(rf"^{re.escape(REPO_URL)}/(?:blob|tree)/main/", f"{REPOSITORY}/", target)
        path, _, anchor = local.partition("#")
        if "://" in path:
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_the_results_are_those_of_the_committed_files(tmp_path: Path) -> None:
    shutil.copy(README, tmp_path)
    renew_readme(tmp_path / "README.md", REPOSITORY / "model_cards")
    assert (tmp_path / "README.md").read_text() == README.read_text(), "run `python scripts/collect_cards.py --renew`"


def test_the_reference_is_that_of_the_schema() -> None:
    written = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == config_reference(), "run `python scripts/config_reference.py`"


def test_contributing_names_files_that_exist() -> None:
    for path in re.findall(r"`(hfseg/[\w/]+\.py)`", (REPOSITORY / "CONTRIBUTING.md").read_text()):
        assert "NAME" in path or (REPOSITORY / path).is_file(), path
