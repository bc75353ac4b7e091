"""Cards of real runs at toy size: what they say, that their code runs, and what is refused."""

import getpass
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

from hfseg import RunConfig, UserError, run
from hfseg.publishing import collect_cards, discard_results, renew_cards, write_pages
from hfseg.publishing.card import build_card, write_card
from hfseg.publishing.card_checks import check_card
from hfseg.publishing.eval_results import EVAL_RESULTS
from hfseg.runs import RunResults, public_init
from tests.builders import NEWER_CLIENT, write_config
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

SECTIONS = ["Use", "Results", "Training", "Reproduce it", "Limits and licences", "Cite"]
MODELS = {
    "segformer": "model={type: segformer, size: b0}",
    "fcn": "model={type: fcn, size: resnet50, freeze: encoder}",
    "auto": "model={type: auto, init: INIT}",
}


@pytest.fixture(scope="module")
def trained(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a finished run of a kind, made once."""
    return cache(lambda kind: train(kind, pets, tmp_path_factory.mktemp(kind)))


@pytest.fixture(scope="module", params=MODELS)
def finished(request: pytest.FixtureRequest, trained: Callable[[str], Path]) -> Path:
    return trained(request.param)


@pytest.fixture(scope="module")
def plain(trained: Callable[[str], Path]) -> Path:
    return trained("segformer")


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """A run whose files a test may change."""
    return Path(shutil.copytree(plain, tmp_path / "copied", ignore=shutil.ignore_patterns("checkpoint-*", "model")))


def train(kind: str, pets: Path, folder: Path) -> Path:
    config = SegformerConfig(depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    SegformerForSemanticSegmentation(config).save_pretrained(folder / "init")
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "init")
    overrides = [MODELS[kind].replace("INIT", str(folder / "init")), "train.max_steps=1", "train.eval_steps=1",
                 "train.save_steps=1"]  # fmt: skip
    run(RunConfig.load(write_config(folder, pets), overrides))
    return folder / "run"


def change(path: Path, **changes: Any) -> None:
    """Sets keys of a JSON or YAML file; `data__name` is `name` in `data`."""
    tree = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    path.write_text(json.dumps(tree) if path.suffix == ".json" else yaml.safe_dump(tree))


def test_the_card_of_a_run_is_complete(finished: Path, pets: Path) -> None:
    card = check_card(finished / "README.md")
    assert re.findall(r"^## (.+)$", card.text, re.MULTILINE) == SECTIONS
    metrics = json.loads((finished / "metrics.json").read_text())
    results = {result.metric_type: result for result in ModelCard.load(finished / "README.md").data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "mean_iou": round(metrics["test_mean_iou"], 4),
        "accuracy": round(metrics["test_pixel_accuracy"], 4),
        "mean_accuracy": round(metrics["test_mean_accuracy"], 4),
    }
    assert results["mean_iou"].dataset_type == "timm/oxford-iiit-pet"
    assert "native size, images resized" in results["mean_iou"].metric_name
    low, high = metrics["test_mean_iou_low"], metrics["test_mean_iou_high"]
    assert f"{metrics['test_mean_iou']:.4f} [{low:.4f}, {high:.4f}]" in card.text
    assert "test, 6 images" in card.text
    for row in json.loads((finished / "per_class.json").read_text())["test"]:
        assert f" {row['iou']:.4f} | {row['accuracy']:.4f} | " in card.text
    text = (finished / "README.md").read_text()
    here = (pets, finished, Path.cwd(), tempfile.gettempdir(), f"{Path.home()}/", f"/{getpass.getuser()}/")
    for private in map(str, here):
        assert private not in text, private
    assert "data.root=FOLDER_OF_THE_DATA" in text


def test_the_code_on_the_card_runs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(finished)
    Image.effect_noise((50, 40), 60).convert("RGB").save("image.jpg")
    blocks = re.findall(r"```python\n(.*?)```", (finished / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    found: dict[str, Any] = {}
    for block in blocks:
        exec(block, found)
        assert found.get("mask") is None or found["mask"].shape == (40, 50)
    if RunConfig.load(finished / "run_config.yaml").model.type == "fcn":  # its own code, without hfseg
        hidden = "import sys\nsys.modules['hfseg'] = None\n"
        subprocess.run([sys.executable, "-c", hidden + "\n".join(blocks[:2])], cwd=tmp_path, check=True)
    assert len(found["segment"]("image.jpg")) >= 1
    assert (found["mask"] == found["processor"].post_process_semantic_segmentation(
        found["outputs"], target_sizes=[(40, 50)])[0].numpy()).mean() > 0.99  # fmt: skip


@NEWER_CLIENT
def test_the_card_is_accepted_by_the_hub(finished: Path, hub: HubServer) -> None:
    ModelCard.load(finished / "README.md").validate()
    refused = ModelCard((finished / "README.md").read_text().replace("license: ", "license: no-such-", 1))
    with pytest.raises(ValueError, match="license"):
        refused.validate()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"license": "apache-2.0", "datasets": ["timm/oxford-iiit-pet"], "base_model": None}),
        ({"model__init": "nvidia/mit-b0"},
         {"license": "other", "license_name": "nvidia-source-code-license-for-segformer",
          "base_model": "nvidia/mit-b0", "base_model_relation": "finetune"}),
        ({"model__init": "/home/someone/segformer.b0.512x512.ade.160k.pth"},
         {"license": "other", "license_name": "nvidia-source-code-license-for-segformer", "base_model": None}),
        ({"model__init": "someone/their-model"}, {"license": "unknown", "base_model": "someone/their-model"}),
        ({"model__init": "runs/pretrained/model"}, {"license": "unknown", "base_model": None}),
        ({"data__name": "cityscapes"}, {"license": "other", "license_name": "cityscapes-terms-of-use"}),
        ({"data__name": "folder"}, {"license": "unknown", "datasets": None}),
        ({"data__name": "hub", "data__repo": "me/scans"}, {"license": "unknown", "datasets": ["me/scans"]}),
        ({"model__type": "fcn", "model__size": "resnet50", "model__init": "ResNet50_Weights.IMAGENET1K_V2"},
         {"license": "apache-2.0", "base_model": None}),
    ],
)  # fmt: skip
def test_whose_terms_hold(copied: Path, changes: dict[str, str], expected: dict[str, Any]) -> None:
    change(copied / "run_config.yaml", **changes)
    write_card(copied)
    data = check_card(copied / "README.md").data
    assert {key: data.get(key) for key in expected} == expected
    text = (copied / "README.md").read_text()
    assert "/home/someone" not in text
    assert (data.get("license_link") or "Apache-2.0") in text or data["license"] == "unknown"


def test_every_score_of_the_run_is_shown_in_words(copied: Path) -> None:
    measured = {"boundary_iou": 0.1111, "band_iou_3px": 0.2222, "category_iou": 0.3333, "category_iou_flat": 0.4444,
                "ece": 0.5555, "brier": 0.6666, "something_new": 0.7777}  # fmt: skip
    scores = {f"{split}_{key}": value for split in ("eval", "test") for key, value in measured.items()}
    change(copied / "metrics.json", **scores, eval_temperature=1.2345, test_ece_calibrated=0.0123)
    text = build_card(copied).text
    for name, value in (
        ("Boundary IoU", "0.1111"), ("mean IoU within 3 px of a boundary", "0.2222"),
        ("mean IoU of the categories", "0.3333"), ("IoU of the category flat", "0.4444"),
        ("calibration error ECE (lower is better)", "0.5555"), ("Brier score (lower is better)", "0.6666"),
        ("something new", "0.7777"),
    ):  # fmt: skip
        assert f"| {name} | {value} | {value} |" in text
    assert "| the same at the fitted temperature | - | 0.0123 |" in text
    assert "| temperature, fitted on validation | 1.2345 |" in text
    shown, folded = text.split("<summary>More scores")
    assert "ECE" in shown
    assert "something new" in folded


def test_many_classes_are_folded_and_names_shown_as_they_are(copied: Path) -> None:
    tree = json.loads((copied / "per_class.json").read_text())
    for split in tree:
        tree[split] = [tree[split][0] | {"name": f"a|b <i>_{number}_"} for number in range(30)]
    (copied / "per_class.json").write_text(json.dumps(tree))
    text = build_card(copied).text
    assert "one of 30 classes." in text
    assert "<details><summary>Each class" in text
    assert r"| a\|b &lt;i>\_29\_ |" in text


def test_another_way_of_evaluation_is_told(copied: Path) -> None:
    evaluation = {"mode": "slide", "crop": 64, "stride": 48, "scales": [0.5, 1.0], "flip": True}
    change(copied / "run_config.yaml", eval=evaluation)
    card = build_card(copied)
    assert "windows of 64 x 64 every 48 pixels, 2 scales, mirrored too" in card.data.eval_results[0].metric_name
    assert 'EvalConfig(mode="slide", crop=64, stride=48, scales=(0.5, 1.0), flip=True)' in card.text


def test_a_model_scored_as_it_is_was_not_trained(copied: Path) -> None:
    change(copied / "run_config.yaml", model__init="nvidia/segformer-b0-finetuned-ade-512-512")
    change(copied / "provenance.json", steps=None, best_step=None, train_seconds=None)
    card = build_card(copied)
    assert "were scored on Oxford-IIIT Pet as they are" in card.text
    assert "## Training" not in card.text
    assert "base_model_relation" not in card.data.to_dict()


def test_a_picture_of_the_data_is_shown_only_where_it_may_be(copied: Path) -> None:
    assert "predictions.png" not in build_card(copied).text
    assert "](figures/predictions.png)" in build_card(copied, show_predictions=True).text
    change(copied / "run_config.yaml", data__name="synthetic_pet")
    assert "](figures/predictions.png)" in build_card(copied).text
    assert "predictions.png" not in build_card(copied, show_predictions=False).text
    (copied / "figures" / "predictions.png").unlink()
    assert "predictions.png" not in build_card(copied, show_predictions=True).text


def test_the_widget_has_images_only_where_they_may_be_shown(copied: Path) -> None:
    assert "widget" not in build_card(copied).data.to_dict()
    change(copied / "run_config.yaml", data__name="synthetic_pet")
    write_card(copied)
    card = check_card(copied / "README.md")
    examples = [f"figures/example_{number}.png" for number in (1, 2, 3)]
    assert [example["src"] for example in card.data.widget] == examples
    kept = [example.image for example in RunResults.read(copied).examples if not example.title]
    for path, image in zip(examples, kept[:3], strict=True):
        assert Image.open(copied / path).tobytes() == image.tobytes()
    (copied / examples[1]).unlink()
    with pytest.raises(UserError, match=r"it shows figures/example_2\.png, which is missing"):
        check_card(copied / "README.md")
    discard_results(copied)
    assert not list(copied.glob("figures/example_*"))


def test_the_score_on_a_data_set_of_the_hub_is_listed_as_the_hub_reads_it(copied: Path) -> None:
    path = copied / EVAL_RESULTS
    write_pages(copied)
    assert not path.exists()  # the data is no data set of the Hub
    change(copied / "run_config.yaml", data__name="hub", data__repo="me/scans", data__root=None)
    change(copied / "run_config.yaml", data__revision="ab" * 20, data__subset="knees")
    write_pages(copied)
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    score = json.loads((copied / "metrics.json").read_text())["test_mean_iou"]
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/scans", "knees", round(score, 4))
    assert entry.dataset_revision == "ab" * 20
    assert entry.notes.startswith("mean IoU on 6 test images: one confusion matrix at the labels' native size, images")
    change(copied / "run_config.yaml", data__revision="main", data__subset=None)
    write_pages(copied)
    [entry] = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.task_id, entry.dataset_revision) == ("default", None)
    discard_results(copied)
    assert not path.exists()


def test_a_card_for_a_repository_names_it(copied: Path) -> None:
    assert build_card(copied, repo="me/pets").text.count('"me/pets"') == 3
    assert "is the folder that the run wrote" not in build_card(copied, repo="me/pets").text


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", None, "metrics.json missing"),
        ("provenance.json", None, "provenance.json missing"),
        ("run_config.yaml", None, "run_config.yaml missing"),
        ("metrics.json", '{"eval_mean_iou": 0.5', "metrics.json is torn"),
        ("metrics.json", '{"eval_mean_iou": NaN}', "NaN is not JSON"),
        ("metrics.json", '{"eval_mean_iou": 0.5}', "test_mean_iou: Field required"),
        ("per_class.json", '{"eval": [], "test": []}', "does not list the same classes"),
        ("per_class.json", '{"eval": [{"name": "pet"}], "test": []}', "eval.0.iou: Field required"),
        ("provenance.json", "[]", "provenance.json is not as a run writes it"),
        ("run_config.yaml", "name: a\ndata: {name: nowhere}\n", "data.name"),
    ],
)
def test_a_missing_or_torn_file_is_named(copied: Path, file: str, content: str | None, said: str) -> None:
    if content is None:
        (copied / file).unlink()
    else:
        (copied / file).write_text(content)
    before = (copied / "README.md").read_bytes()
    with pytest.raises(UserError) as error:
        write_card(copied)
    assert said in str(error.value)
    assert str(copied) in str(error.value)
    assert (copied / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"^license: .*\n", "", "`license` is missing"),
        (r"^license: .*\n", "license: other\n", "`license_name` is missing"),
        (r"^pipeline_tag: .*\n", "", "`pipeline_tag` is None, not 'image-segmentation'"),
        (r"^library_name: .*\n", "library_name: keras\n", "`library_name` is 'keras', not 'transformers'"),
        (r"^tags:\n(- .*\n)+", "", "`tags` is missing"),
        (r"^model-index:\n([- ] .*\n)+", "", "`model-index` has no result"),
        (r"type: mean_iou", "type: iou", "`model-index` has no mean_iou"),
        (r"      value: .*\n", "      value: good\n", "`value` is 'good', not a number"),
        (r"      split: .*\n", "", "`dataset_split` is missing"),
        (r"^## Limits and licences\n", "", "the section `## Limits and licences` is missing"),
        (r"figures/curves.png", "figures/gone.png", "it shows figures/gone.png, which is missing"),
        (r"^## Cite\n", f"## Cite\n\nSee {Path.home()}/notes.\n", "it names a folder of this machine"),
        (r"^license: .*\n", "license: [\n", "is no model card"),
    ],
)
def test_what_a_card_lacks_is_named(copied: Path, old: str, new: str, said: str) -> None:
    path = copied / "README.md"
    text, count = re.subn(old, new, path.read_text(), flags=re.MULTILINE)
    assert count
    path.write_text(text)
    with pytest.raises(UserError) as error:
        check_card(path)
    assert said in str(error.value)


def test_no_card_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no model card"):
        check_card(tmp_path / "README.md")


def test_collected_cards_hold_no_image_of_the_data(plain: Path, pets: Path, tmp_path: Path) -> None:
    collect_cards([plain], tmp_path)
    names = {path.name for path in (tmp_path / "tiny").iterdir()}
    assert names == {"README.md", "curves.png", "history.jsonl", "metrics.json", "per_class.json", "provenance.json",
                     "run_config.yaml"}  # fmt: skip
    assert all(str(pets) not in path.read_text() for path in files_of_text(tmp_path))
    assert yaml.safe_load((tmp_path / "tiny" / "run_config.yaml").read_text())["data"]["root"] == "<root>"
    before = {path: path.read_bytes() for path in files_of_text(tmp_path)}
    renew_cards(tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(UserError, match=r"metrics\.json"):
        collect_cards([plain, tmp_path], tmp_path / "never")
    assert not (tmp_path / "never").exists()


def files_of_text(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("**/*.*") if path.suffix in (".md", ".json", ".yaml", ".jsonl"))


def test_the_committed_cards_are_what_their_files_give(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "model_cards", tmp_path / "cards")
    renew_cards(tmp_path / "cards")
    for path in files_of_text(tmp_path / "cards"):
        committed = REPOSITORY / "model_cards" / path.relative_to(tmp_path / "cards")
        assert path.read_bytes() == committed.read_bytes(), "run `python scripts/collect_cards.py --renew`"


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "collect_cards.py"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert result.returncode == 2
    assert "is not the folder of a finished run" in result.stderr
    assert "Traceback" not in result.stderr


def test_which_weights_were_kept(copied: Path) -> None:
    change(copied / "provenance.json", steps=2, best_step=1, train_seconds=4.2)
    card = str(build_card(copied))
    assert "* **Steps:** 2; kept: the best on validation, step 1\n" in card
    assert "Validation chose the checkpoint; the test split was scored once." in card
    assert "2 steps, in 4.2 seconds on" in card
    assert "Frozen" not in card
    change(copied / "run_config.yaml", train__load_best_model_at_end=False, model__freeze={"stages": 2})
    change(copied / "run_config.yaml", model__unfreeze_at=1000)
    card = str(build_card(copied))
    assert "* **Steps:** 2; kept: the last\n" in card
    assert "Validation chose" not in card
    assert "The weights are those of the last step; the test split was scored once." in card
    assert "* **Frozen:** the first 2 stages of the encoder, for 1,000 steps\n" in card


def test_a_class_whose_name_looks_like_a_link(copied: Path) -> None:
    rows = json.loads((copied / "per_class.json").read_text())
    for split in rows.values():
        split[0]["name"] = "a](b)"
    change(copied / "per_class.json", **rows)
    write_card(copied)
    check_card(copied / "README.md")


def test_a_first_run_is_named_without_the_way_to_it(tmp_path: Path) -> None:
    model = tmp_path / "someone" / "pretraining" / "model"
    model.mkdir(parents=True)
    assert public_init(str(model)) == "./model"  # `pretraining` may be anything
    (model.parent / "run_config.yaml").touch()
    assert public_init(str(model)) == "./pretraining/model"
    assert public_init(str(model / "weights.pth")) == "./weights.pth"
    assert public_init("./pretraining/model") == "./pretraining/model"  # as it is then saved
