"""What a study plans, and what it says of runs: folders in the formats of real ones, pages read back."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hfseg import RunConfig, UserError, run, run_study
from hfseg.config import TransformsConfig
from hfseg.metrics import paired_test
from hfseg.publishing.pages import PAGES
from hfseg.runs import RunResults, write_counts
from hfseg.study.answer import Arm, sentence
from hfseg.study.plan import Job, choose, differing_keys, model_name, plan, undeclared
from hfseg.study.report import write_study
from hfseg.study.running import check_unchanged, is_finished, is_whole, run_here
from tests.builders import Page, study_config, write_finished_run
from tests.conftest import REPOSITORY

ACCURACY = {"scratch": 0.70, "tuned": 0.80, "frozen": 0.70, "fcn": 0.60, None: 0.5}


def finish(jobs: list[Job], **options: Any) -> None:
    for job in jobs:
        write_finished_run(job, ACCURACY[job.arm] + 0.002 * (job.config.seed % 3), **options)


def complaint(folder: Path, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        plan(study_config(folder, **changes))
    return str(error.value)


def test_plan_of_a_study(tmp_path: Path) -> None:
    jobs = plan(study_config(tmp_path))
    assert [job.name for job in jobs] == [
        "pretrain-streets", "scratch-seed0", "tuned-seed0", "frozen-seed0", "fcn-seed0", "scratch-seed1",
        "tuned-seed1", "frozen-seed1", "scratch-seed2", "tuned-seed2", "frozen-seed2",
    ]  # fmt: skip
    streets, scratch, tuned, frozen, fcn, *_ = jobs
    assert streets.config.train == {}  # a tree of its own
    assert tuned.config.model.init == str(tmp_path / "study/pretrain-streets/model")
    assert (tuned.needs, scratch.needs) == ("pretrain-streets", None)
    assert frozen.config.model.freeze == "encoder"
    assert (fcn.config.model.size, fcn.config.train) == ("resnet50", {"max_steps": 20, "optim": "sgd"})
    assert fcn.config.transforms.photometric is False  # FCN's own defaults, for the shared tree says nothing
    assert jobs[-1].config.seed == 2
    assert [job.name for job in choose(jobs, "tuned")] == ["tuned-seed0", "tuned-seed1", "tuned-seed2"]
    assert [job.name for job in choose(jobs, "tuned-seed1")] == ["tuned-seed1"]
    assert choose(jobs, "pretrain.streets") == choose(jobs, "pretrain-streets") == [streets]
    with pytest.raises(UserError, match=r"--arm tune: .* Did you mean `tuned`"):
        choose(jobs, "tune")


def test_what_is_wrong_with_a_study_is_said_before_anything_runs(tmp_path: Path) -> None:
    said = complaint(tmp_path, arms={"a": {"model": {"type": "unet"}}, "b": {"model": {"size": "b9"}}})
    assert "study.arms.a: 1 problem(s)" in said
    assert "model.type" in said
    assert "'unet'" in said
    assert "study.arms.b: 1 problem(s)" in said
    assert "model.size: no size of segformer. Known here: b0, b1" in said
    assert said.count("'unet'") == 1  # and not once for each seed
    tuned = {"model": {"init": "pretrain.street"}}
    assert "Did you mean `pretrain.streets`" in complaint(tmp_path, arms={"a": tuned})
    assert "The study has none" in complaint(tmp_path, arms={"a": tuned}, pretrain=None)
    chained = {"b": {"data": {"name": "synthetic_pet"}, "model": {"init": "pretrain.a"}}}
    assert "a pretraining run does not begin from another one" in complaint(tmp_path, pretrain=chained)
    tree = study_config(tmp_path, arms={"a": None}).model_dump(mode="json", exclude_unset=True)
    with pytest.raises(UserError, match=r"'pretrain.street' is no pretraining run .* Did you mean `streets`"):
        plan(RunConfig.from_tree(tree | {"model": {"init": "pretrain.street"}}, "tree"))
    assert "arms.a.trane: unknown key. Did you mean `train`" in complaint(tmp_path, arms={"a": {"trane": {}}})
    assert "pretrain.b.data is required" in complaint(tmp_path, pretrain={"b": {}}, arms={"a": None})
    assert "each seed only once" in complaint(tmp_path, seeds=[1, 1])
    assert "seeds=[] must be a list" in complaint(tmp_path, arms={"a": {"seeds": []}})
    assert "may not end in -seed" in complaint(tmp_path, arms={"a-seed1": {}})
    assert "train.learning_rat" in complaint(tmp_path, arms={"a": {"train": {"learning_rat": 1}}})
    assert "study.armz: unknown key. Did you mean `arms`" in complaint(tmp_path, armz={})
    with pytest.raises(UserError, match="several runs"):
        run(study_config(tmp_path))


def test_models_that_are_shared_leave_others_their_recipe(tmp_path: Path) -> None:
    tree = study_config(tmp_path, arms={"fcn": None, "b0": {"model": {"type": "segformer"}}}).model_dump(
        mode="json", exclude_unset=True
    )
    fcn, b0, *_ = plan(RunConfig.from_tree(tree | {"model": {"type": "fcn"}}, "tree"))[1:]
    assert (fcn.config.transforms.size, fcn.config.transforms.photometric) == (480, False)
    assert b0.config.transforms == TransformsConfig()


def test_overrides_reach_into_a_study(tmp_path: Path) -> None:
    path = REPOSITORY / "configs/study/toy.yaml"
    overrides = ["study.pretrain.fcn.data.synthetic.size=64", "study.arms.segformer-scratch.train.max_steps=3"]
    jobs = {job.name: job.config for job in plan(RunConfig.load(path, [*overrides, "train.eval_steps=7"]))}
    assert jobs["pretrain-fcn"].data.synthetic.size == 64
    assert jobs["pretrain-segformer"].data.synthetic.size == 128  # the file has one anchor for both
    assert jobs["segformer-scratch-seed0"].train["max_steps"] == 3
    assert jobs["segformer-frozen-seed1"].train["eval_steps"] == 7
    for name in ("small", "pets", "pets_gpu"):
        config = RunConfig.load(REPOSITORY / f"configs/study/{name}.yaml")
        assert undeclared(plan(config), config.study.varies if config.study else ()) == []


def test_undeclared_differences_are_listed(tmp_path: Path) -> None:
    arms = {
        "scratch": {"model": {"type": "segformer"}},
        "tuned": {"model": {"init": "pretrain.streets"}, "train": {"learning_rate": 1e-4}},
        "frozen": {"model": {"init": "pretrain.streets", "freeze": {"stages": 2}}, "optim": {"ema": 0.9}},
        "fcn": {"model": {"type": "fcn"}, "train": {"optim": "sgd"}},
    }
    warnings = undeclared(plan(study_config(tmp_path, arms=arms)), ())
    assert [warning.split(" (")[0] for warning in warnings] == [
        "tuned differs from scratch in `train.learning_rate`", "frozen differs from scratch in `optim.ema`",
    ]  # fmt: skip
    assert "(0.0001 and None)" in warnings[0]
    assert undeclared(plan(study_config(tmp_path, arms=arms)), ("train.learning_rate", "optim")) == []


def test_the_answer(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)
    finish(jobs, boundary=True)
    study = write_study(config, jobs, ["scratch and tuned differ."], {})
    assert study == json.loads((tmp_path / "study/study.json").read_text())
    assert study["best_arm"] == "tuned"
    assert study["missing"] == {}
    told = {(each["first"], each["second"]): each for each in study["differences"]}
    assert list(told) == [("scratch", "tuned"), ("scratch", "frozen"), ("tuned", "frozen"), ("scratch", "fcn")]
    helped = told["scratch", "tuned"]
    scores = [json.loads((job.folder / "metrics.json").read_text())["test_mean_iou"] for job in jobs]
    means = {arm: np.mean([s for s, job in zip(scores, jobs, strict=True) if job.arm == arm]) for arm in ACCURACY}
    assert helped["value"] == pytest.approx(means["tuned"] - means["scratch"], abs=1e-6)
    assert study["arms"]["tuned"]["test"]["mean_iou"]["value"] == pytest.approx(means["tuned"], abs=1e-6)
    assert 0 < helped["low"] < helped["value"] < helped["high"]
    low, value, high = (100 * helped[key] for key in ("low", "value", "high"))
    assert (
        helped["sentence"]
        == f"segformer b0: pretraining helps by {value:.1f} points [{low:.1f}, {high:.1f}] (tuned against scratch)."
    )
    assert "no difference can be told apart between frozen and scratch" in told["scratch", "frozen"]["sentence"]
    assert "freezing the encoder costs" in told["tuned", "frozen"]["sentence"]
    assert "one seed: the interval is over images only; no claim" in told["scratch", "fcn"]["sentence"]
    assert {"model.type", "train.optim"} <= set(told["scratch", "fcn"]["differ_in"])
    text = (tmp_path / "study/study.md").read_text()
    assert all(sentence in text for sentence in study["sentences"])
    assert "scratch and tuned differ." in text
    assert "8 intervals of mean IoU" in text
    assert "Drawn." in text
    made = study["pretraining"]["pretrain-streets"]
    assert made["test_mean_iou"]["value"] == pytest.approx(scores[0])
    words = "pretrain-streets: segformer b0 from scratch on hfseg's drawn streets, 20 steps in 90 s"
    assert f"- {words}; mean IoU on its 40 test images {scores[0]:.3f}.\n" in text
    page = Page((tmp_path / "study/report.html").read_text())
    assert words in page.text
    rows = page.table("arm|start")
    assert [row[0] for row in rows[1:]] == ["scratch", "tuned", "frozen", "fcn"]
    assert f"{means['tuned']:.3f}" in rows[2][3]
    assert "test Boundary IoU" in rows[0]
    assert rows[4][3].endswith("*")
    assert "script" not in page.tags
    assert page.tags["img"] == 2 * (2 + 4) + 3 * 4  # two images by all arms, three of the best run
    assert "near, mean IoU" in page.text
    assert f"tuned: {0.8 + 0.004:.3f}" in page.text
    links = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    for name in ("curves_steps", "curves_time", "per_class", "differences", "confusion"):
        with Image.open(tmp_path / "study/figures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
        assert f"figures/{name}.png" in text


def test_a_single_seed_is_the_paired_interval_of_images(tmp_path: Path) -> None:
    config = study_config(tmp_path, seeds=[0])
    jobs = plan(config)
    finish(jobs)
    told = {(each["first"], each["second"]): each for each in write_study(config, jobs, [], {})["differences"]}
    counts = {}
    for job in jobs:
        with np.load(job.folder / "counts.npz") as file:
            counts[job.arm] = file["test_areas"][np.argsort(file["test_names"])]
    expected = paired_test(counts["scratch"], counts["tuned"])
    found = told["scratch", "tuned"]
    assert [found[key] for key in ("value", "low", "high")] == pytest.approx(
        [expected.value, expected.low, expected.high], abs=1e-6
    )


def test_gaps_are_shown(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)
    study = write_study(config, jobs, [], {"scratch-seed0": "exit status 1: out of memory"})
    assert (study["best_arm"], len(study["missing"]), study["differences"]) == (None, 11, [])
    page = Page((tmp_path / "study/report.html").read_text())
    assert "No arm has a finished run yet." in page.text
    assert "scratch-seed0: exit status 1: out of memory" in page.text
    finish([job for job in jobs if job.name in ("scratch-seed0", "scratch-seed1", "tuned-seed0", "tuned-seed1")])
    (jobs[2].folder / "counts.npz").write_bytes(b"torn")
    study = write_study(config, jobs, [], {})
    text = (tmp_path / "study/study.md").read_text()
    assert "Missing: 7 of 11 runs" in text
    assert "frozen-seed0: not finished yet" in text
    assert "tuned-seed0 is left out" in text
    assert "| scratch | scratch | 2 of 3 |" in text
    assert "| frozen | frozen | 0 of 3 | – |" in text  # noqa: RUF001
    assert [each["runs"] for each in study["differences"]] == [[2, 1]]
    assert "No validation image" not in (tmp_path / "study/report.html").read_text()
    (tmp_path / "study/scratch-seed1/examples.npz").unlink()
    write_study(config, jobs, [], {})
    assert "No validation image is among the fixed examples" in (tmp_path / "study/report.html").read_text()


def test_a_sentence_claims_no_more_than_is_shown(tmp_path: Path) -> None:
    arms = {
        "scratch": {"model": {"type": "segformer"}},
        "tuned": {"model": {"init": "pretrain.streets"}, "train": {"learning_rate": 1e-4}},
        "half": {"model": {"init": "pretrain.streets", "freeze": {"stages": 2}}, "train": {"learning_rate": 1e-4}},
        "frozen": {"model": {"init": "pretrain.streets", "freeze": "encoder"}},
        "larger": {"model": {"type": "segformer", "size": "b1"}},
    }
    jobs = plan(study_config(tmp_path, arms=arms))
    found = {job.arm: Arm(job.arm, job) for job in reversed(jobs) if job.arm is not None}

    def told(first: str, second: str, low: float) -> str:
        one, other = found[first], found[second]
        is_same = model_name(one.job.config) == model_name(other.job.config)
        keys = list(differing_keys(one.job.config, other.job.config))
        tree = {"same_model": is_same, "differ_in": keys, "value": 0.02, "low": low, "high": 0.03, "over_seeds": True}
        return sentence(one, other, tree)

    amount = "2.0 points [1.0, 3.0]"
    assert (
        told("scratch", "tuned", 0.01)
        == f"tuned is better than scratch by {amount}; they differ in train.learning_rate too."
    )
    assert told("tuned", "half", 0.01) == f"half is better than tuned by {amount}."
    assert told("scratch", "larger", 0.01) == f"larger is better than scratch by {amount}."
    frozen = "a frozen pretrained encoder beats training from scratch by"
    assert told("scratch", "frozen", 0.01) == f"segformer b0: {frozen} {amount} (frozen against scratch)."
    assert told("scratch", "frozen", 0.0004) == (
        "segformer b0: no difference can be told apart between frozen and scratch (+2.0 points [+0.0, +3.0])."
    )


def test_an_interrupted_study_answers_from_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)

    def interrupt(job: Job) -> int:
        if job.name == "tuned-seed0":
            raise KeyboardInterrupt
        if job.name == "scratch-seed0":
            return 1
        write_finished_run(job, 0.7)  # the pretraining that tuned-seed1 began from is made anew
        (job.folder / "model").mkdir()
        (job.folder / "model/model.safetensors").write_bytes(b"other weights")
        return 0

    tuned = next(job for job in jobs if job.name == "tuned-seed1")
    write_finished_run(tuned, 0.8)
    (tuned.folder / "init.sha256").write_text("those of yesterday")
    monkeypatch.setattr("hfseg.study.running._run_one", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_study(config)
    study = json.loads((tmp_path / "study/study.json").read_text())
    assert list(study["pretraining"]) == ["pretrain-streets"]
    assert len(study["missing"]) == len(jobs) - 2
    assert f"{tuned.folder} began from other weights" in study["warnings"][0]
    assert study["missing"]["scratch-seed0"].startswith("exit status 1")
    assert study["missing"]["tuned-seed0"] == "not finished yet"


def test_times_that_are_not_known_are_no_zeros(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)
    finish(jobs)
    for job in jobs:
        if job.name == "scratch-seed0" or job.arm in ("fcn", None):
            (job.folder / "provenance.json").unlink()
    arms = write_study(config, jobs, [], {})["arms"]
    assert [arms[name]["minutes_per_run"] for name in ("scratch", "tuned", "fcn")] == [1.5, 1.5, None]
    assert [arms[name]["hardware"] for name in ("scratch", "fcn")] == [["2 CPU cores"], []]
    fcn = next(line for line in (tmp_path / "study/study.md").read_text().splitlines() if line.startswith("| fcn |"))
    assert fcn.endswith("| \N{EN DASH} / \N{EN DASH} | \N{EN DASH} | \N{EN DASH} |")


def test_names_and_notes_are_text(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script> | *pets*\nand more"
    config = study_config(tmp_path)
    config = config.model_copy(update={"data": config.data.model_copy(update={"note": nasty})})
    jobs = plan(config)
    finish([job for job in jobs if job.name in ("scratch-seed0", "fcn-seed0")])
    for job in jobs:
        if (job.folder / "counts.npz").exists():
            counts = RunResults.read(job.folder).require_counts()
            write_counts(job.folder, counts | {"classes": np.array([nasty, "a|b", "c"])})
    write_study(config, jobs, [], {"tuned-seed0": nasty})
    shown = r"&lt;script>alert(1)&lt;/script> \| \*pets\* and more"
    text = (tmp_path / "study/study.md").read_text()
    assert text.startswith(f"# a-study\n\n{shown}\n")
    assert f"- tuned-seed0: {shown}\n" in text
    assert f"| arm | {shown} | a\\|b | c |\n" in text
    assert "<script" not in text
    assert "\n- \\* One seed" in text
    page = Page((tmp_path / "study/report.html").read_text())
    assert "script" not in page.tags
    assert "<script>alert(1)</script> | *pets*" in page.text


def test_small_splits_and_other_images_are_said(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)
    finish(jobs, num_images=9)
    study = write_study(config, jobs, [], {})
    assert "The test split has only 9 images: intervals over so few are too narrow." in study["warnings"]
    finish(jobs, num_images=1)
    study = write_study(config, jobs, [], {})
    assert "The test split has 1 image(s): too few for an interval." in study["warnings"]
    assert all(each["low"] is None for each in study["differences"])
    assert "without an interval, which takes two test images" in study["sentences"][0]
    finish(jobs)
    finish([job for job in jobs if job.arm == "fcn"], images=5)
    study = write_study(config, jobs, [], {})
    assert study["sentences"][-1] == "fcn and scratch were scored on other images: not compared."
    assert "low" not in study["differences"][-1]


def test_runs_of_one_arm_on_other_images(tmp_path: Path) -> None:
    config = study_config(tmp_path)
    jobs = plan(config)
    finish(jobs)
    for seed, options in ((1, {"num_images": 35}), (2, {"images": 5})):
        finish([job for job in jobs if job.name == f"tuned-seed{seed}"], **options)
    finish([job for job in jobs if job.arm == "frozen"], num_images=9)
    study = write_study(config, jobs, [], {})
    left_out = "is left out: it was scored on other images, labels or classes than its arm."
    assert study["warnings"][:2] == [f"tuned-seed1 {left_out}", f"tuned-seed2 {left_out}"]
    assert "The test split has only 9 images" in study["warnings"][-1]
    assert study["arms"]["tuned"]["seeds"] == [0]
    assert (study["best_arm"], study["num_images"]["test"]) == ("tuned", 40)


def test_results_of_another_config_are_refused(tmp_path: Path) -> None:
    jobs = plan(study_config(tmp_path))
    finish(jobs)
    check_unchanged(jobs)
    changed = plan(study_config(tmp_path, varies=["loss"]))  # not a key of any run
    check_unchanged(changed)
    other = study_config(tmp_path).model_copy(update={"train": {"max_steps": 30}})
    with pytest.raises(UserError) as error:
        run_study(other)
    assert str(error.value).count("train.max_steps: 20 then, 30 now") == 10
    shutil.rmtree(jobs[0].folder)
    for job in jobs[1:]:
        (job.folder / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"pretrain-streets is not finished.*--arm pretrain.streets"):
        run_study(study_config(tmp_path), "tuned")


def test_a_run_that_was_killed_after_its_scores_gets_its_pages(tmp_path: Path) -> None:
    """It needs no checkpoint, and its scores stay as they are."""
    job = next(job for job in plan(study_config(tmp_path)) if job.arm == "scratch")
    assert not is_whole(job)
    write_finished_run(job, 0.7)
    assert is_whole(job)
    scores = (job.folder / "metrics.json").read_bytes()
    for name in PAGES[1:]:
        (job.folder / name).unlink()
    assert is_finished(job)
    assert not is_whole(job)
    run_here(job)
    assert is_whole(job)
    assert (job.folder / "metrics.json").read_bytes() == scores
    assert Page((job.folder / "report.html").read_text()).table("score|test|validation")
