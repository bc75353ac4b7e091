"""The page of a run: real runs at toy size, read back with a parser, and looked at by a browser where there is one."""

import json
import math
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hfseg import RunConfig, SegMetrics, run
from hfseg.reporting import write_report
from hfseg.runs.examples import load_examples
from tests.builders import Page

NASTY = ("<b>&", 'a "quoted" name', "plain")
TRAIN = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1, "eval_strategy": "steps",
         "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "disable_tqdm": True}  # fmt: skip


def write_folder(root: Path) -> None:
    """Images and masks with classes that a page must not take for markup."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 7), ("test", 4)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            mask = rng.integers(0, 3, (4, 6), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
            colours = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)], dtype=np.uint8)
            Image.fromarray(colours[mask]).save(root / "images" / split / f"{split}{number}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{split}{number}.png")
    (root / "classes.json").write_text(json.dumps(NASTY))


def make_run(folder: Path, data: dict[str, object]) -> Path:
    path = folder / "config.yaml"
    tree = {
        "name": "small",
        "data": data | {"note": "Some <i>note</i>"},
        "transforms": {"size": 32},
        "eval": {"size": 32},
    }
    path.write_text(yaml.safe_dump(tree | {"train": TRAIN, "output_dir": str(folder / "run")}))
    run(RunConfig.load(path))
    return folder / "run"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    write_folder(folder / "data")
    return make_run(folder, {"name": "folder", "root": str(folder / "data")})


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    drawn = {"num_trainval": 12, "num_test": 4, "size": 64}
    return make_run(folder, {"name": "synthetic_cityscapes", "root": str(folder), "synthetic": drawn})


@pytest.fixture(params=["nasty", "streets"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_one_file_that_loads_nothing(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    for tag, name, value in page.attributes:
        if name in ("src", "srcset", "href", "xlink:href", "poster", "data"):
            assert value.startswith(("data:", "#")), (tag, value[:80])
    assert not page.tags.keys() & {"script", "iframe", "object", "embed", "i", "b"}
    assert "@import" not in text
    assert "http" not in text
    assert page.tags["h1"] == page.tags["title"] == 1
    assert ("meta", "name", "viewport") in page.attributes
    ids = Counter(value for _, name, value in page.attributes if name == "id")
    assert all(count == 1 for count in ids.values())
    assert all(value.replace("url(", "").strip(")")[1:] in ids
               for _, name, value in page.attributes if name in ("clip-path", "xlink:href"))  # fmt: skip
    num_pictures = sum(tag == "img" and name == "alt" and bool(value) for tag, name, value in page.attributes)
    assert num_pictures == page.tags["img"] == 4 * len(load_examples(folder / "examples.npz")[0])
    assert len(text) < 1_000_000
    assert str(folder.parent) not in text  # a path of this machine


def test_numbers_are_those_of_the_files(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    rows = {first: cells for first, *cells in page.table("score|test|validation")}
    for number, prefix in enumerate(("test", "eval")):
        value, low, high = (metrics[f"{prefix}_mean_iou{end}"] for end in ("", "_low", "_high"))
        assert rows["mean IoU"][number] == f"{value:.4f} [{low:.4f}, {high:.4f}]"
        assert rows["pixel accuracy"][number] == f"{metrics[f'{prefix}_pixel_accuracy']:.4f}"
        assert rows["mean IoU of a constant answer"][number] == f"{metrics[f'{prefix}_constant_mean_iou']:.4f}"
    assert f"{metrics['test_mean_iou_low']:.4f} to {metrics['test_mean_iou_high']:.4f}" in page.text
    per_class = json.loads((folder / "per_class.json").read_text())["test"]
    head, *shown = page.table("class|IoU")
    assert head == ["class", "IoU", "accuracy", "precision", "Dice", "pixels"]
    for row, cells in zip(per_class, shown, strict=True):
        scores = [row[key] for key in ("iou", "accuracy", "precision", "dice")]
        assert cells == [row["name"], *("–" if score is None else f"{score:.3f}" for score in scores),  # noqa: RUF001
                         f"{row['pixels']:,}"]  # fmt: skip


def test_confusion(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    with np.load(folder / "counts.npz") as counts:
        matrix = counts["test_confusion"]
    per_class = json.loads((folder / "per_class.json").read_text())["test"]
    names = [row["name"] for row in per_class]
    head, *shown = page.table("|" + "|".join(names))
    assert head[1:] == names
    for name, row, cells in zip(names, matrix.tolist(), shown, strict=True):
        assert cells[0] == name
        for count, cell in zip(row, cells[1:], strict=True):
            if not sum(row):
                assert cell == "–"  # noqa: RUF001
            else:
                assert (f"{100 * count / sum(row):.0f}" if count / sum(row) >= 0.005 else "") == cell


def test_names_are_text(nasty: Path) -> None:
    text = (nasty / "report.html").read_text()
    page = Page(text)
    assert "<b>" not in text
    assert [row[0] for row in page.table("class|IoU")][1:] == list(NASTY)
    assert page.table("|" + "|".join(NASTY))
    assert "Some <i>note</i>" in page.text


def test_examples_are_the_best_the_median_and_the_worst_and_a_fixed_handful(nasty: Path) -> None:
    examples, labels = load_examples(nasty / "examples.npz")
    assert list(labels.names) == list(NASTY)
    with np.load(nasty / "counts.npz") as counts:
        names, areas = counts["eval_names"].tolist(), counts["eval_areas"]
    scores = {}
    for name, (hits, labelled, predicted) in zip(names, areas.tolist(), strict=True):
        unions = [a + b - c for a, b, c in zip(labelled, predicted, hits, strict=True)]
        defined = [hit / union for hit, union in zip(hits, unions, strict=True) if union]
        scores[name] = sum(defined) / len(defined)
    ordered = sorted(names, key=lambda name: (-scores[name], names.index(name)))
    assert len(ordered) == 7
    expected = [("best", 0), ("best", 1), ("median", 3), ("median", 4), ("worst", 5), ("worst", 6)]
    chosen = [(title, ordered[rank]) for title, rank in expected] + [("", names[place]) for place in (0, 2, 4, 6)]
    assert [(each.title, each.name) for each in examples] == chosen
    for example in examples:
        assert example.mean_iou == pytest.approx(scores[example.name])
        metrics = SegMetrics(3)  # small pictures are kept as they are
        metrics.update(example.prediction, example.label)
        assert metrics.compute()["mean_iou"] == example.mean_iou


def test_data(nasty: Path) -> None:
    rows = Page((nasty / "report.html").read_text()).table("class|train|validation|test")
    assert rows[1] == ["images", "8", "7", "4"]
    per_class = json.loads((nasty / "per_class.json").read_text())["test"]
    total = sum(row["pixels"] for row in per_class)
    assert [row[3] for row in rows[2:]] == [f"{100 * row['pixels'] / total:.2f} %" for row in per_class]


@pytest.mark.parametrize("damage", ["missing", "torn"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("metrics.json", "There are no scores: metrics.json is missing or damaged."),
        ("per_class.json", "per_class.json is missing or damaged"),
        ("history.jsonl", "history.jsonl is missing or empty"),
        ("counts.npz", "counts.npz is missing or damaged"),
        ("examples.npz", "examples.npz is missing or damaged"),
        ("provenance.json", "provenance.json is missing or damaged"),
        ("run_config.yaml", "run_config.yaml is missing or damaged"),
    ],
)
def test_a_gap_is_a_sentence(nasty: Path, tmp_path: Path, name: str, said: str, damage: str) -> None:
    for path in nasty.glob("*.*"):
        shutil.copyfile(path, tmp_path / path.name)
    whole = Page((nasty / "report.html").read_text()).text
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()
    if damage == "torn":
        (tmp_path / name).write_bytes(content[:40])
    page = Page(write_report(tmp_path).read_text())
    assert said in page.text
    assert said not in whole
    assert page.open == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("metrics.json", ("test_mean_iou",), "high"),
        ("per_class.json", ("test", 0), {"iou": 0.5}),
        ("per_class.json", ("eval", 1, "dice"), "high"),
        ("per_class.json", ("eval",), None),
        ("provenance.json", ("versions",), None),
        ("provenance.json", ("num_images", "train"), "many"),
    ],
)
def test_a_file_that_was_edited_is_a_gap_too(
    nasty: Path, tmp_path: Path, name: str, key: tuple[str | int, ...], value: object
) -> None:
    for path in nasty.glob("*.*"):
        shutil.copyfile(path, tmp_path / path.name)
    tree = json.loads((tmp_path / name).read_text())
    place = tree
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    (tmp_path / name).write_text(json.dumps(tree))
    page = Page(write_report(tmp_path).read_text())
    assert page.open == []
    assert "high" not in page.text
    assert "many" not in page.text


def test_an_empty_folder_has_a_page_of_gaps(tmp_path: Path) -> None:
    text = Page(write_report(tmp_path).read_text()).text
    assert text.count("missing") >= 7
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_without_times_there_are_the_curves_against_steps(nasty: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (nasty / "history.jsonl").read_text().splitlines()]
    assert all(0 < line["seconds"] < 600 for line in lines)
    for line in lines:
        del line["seconds"]
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = Page(write_report(tmp_path).read_text())
    assert page.tags["svg"] == 2
    assert "There are no curves against time" in page.text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_it_without_complaint(streets: Path, tmp_path: Path) -> None:
    dark = []
    for scheme in (0, 1):  # dark, light
        picture = tmp_path / f"{scheme}.png"
        command = [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=390,800", f"--screenshot={picture}", f"file://{streets}/report.html",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "CONSOLE" not in result.stderr
        dark.append(np.asarray(Image.open(picture).convert("L"))[5, 5])
    assert dark[0] < 40
    assert dark[1] > 240
    assert not math.isclose(dark[0], dark[1])
