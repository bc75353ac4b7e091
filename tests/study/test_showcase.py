"""What is shown of a study in a repository: nothing but its files' numbers, and no picture of its data."""

from pathlib import Path

import pytest

from hfseg import UserError
from hfseg.study import collect_study, renew_readme
from hfseg.study.plan import Job, plan
from hfseg.study.report import write_study
from hfseg.study.showcase import BEGIN, END
from tests.builders import study_config, write_finished_run


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Of a study whose runs are all finished: the best is seed 1 of the tuned arm."""
    jobs = plan(study_config(tmp_path))
    for job in jobs:
        write_finished_run(job, {"tuned": 0.8, "scratch": 0.7}.get(job.arm or "", 0.6) + 0.02 * (job.config.seed == 1))
        (job.folder / "report.html").write_text("pictures")
    return jobs


def test_a_study_among_the_cards(jobs: list[Job], tmp_path: Path) -> None:
    study = write_study(study_config(tmp_path), jobs, ["scratch and tuned differ."], {})
    assert study["best_run"] == "tuned-seed1"
    cards, readme = tmp_path / "cards", tmp_path / "README.md"
    readme.write_text(f"# Here\n\n{BEGIN}\nYesterday.\n{END}\n\nThe end.\n")
    for _ in range(2):  # the second time changes nothing
        collect_study(tmp_path / "study", cards)
        renew_readme(readme, cards)
    assert {path.name for path in cards.iterdir() if path.is_dir()} == {
        "a-study", "a-study-pretrain-streets", "a-study-scratch-seed1", "a-study-tuned-seed1", "a-study-frozen-seed1",
        "a-study-fcn-seed0",
    }  # fmt: skip
    assert "[a-study-tuned-seed1](a-study-tuned-seed1/README.md)" in (cards / "README.md").read_text()
    assert not list(cards.glob("**/*.html"))
    text = readme.read_text()
    assert text.startswith(f"# Here\n\n{BEGIN}\n\n")
    assert text.endswith(f"{END}\n\nThe end.\n")
    assert "Yesterday" not in text
    told = {(each["first"], each["second"]): each["sentence"] for each in study["differences"]}
    assert f"* {told['scratch', 'tuned']}\n" in text
    assert "* scratch and tuned differ.\n" in text
    assert told["scratch", "fcn"] not in text  # one seed, two recipes
    score = study["arms"]["tuned"]["test"]["mean_iou"]
    assert f"| tuned | fine-tuned | 3 | {score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}] |" in text
    assert "](cards/a-study/figures/curves_steps.png)" in text
    for name in ("curves_steps", "differences"):
        assert (cards / "a-study/figures" / f"{name}.png").is_file()


def test_what_cannot_be_shown(jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a study"):
        collect_study(tmp_path / "study", tmp_path / "cards")
    torn = next(job.folder / "counts.npz" for job in jobs if job.arm == "fcn")  # the only run of its arm
    whole = torn.read_bytes()
    torn.write_bytes(b"torn")
    write_study(study_config(tmp_path), jobs, [], {})
    with pytest.raises(UserError, match="runs of fcn are left out"):
        collect_study(tmp_path / "study", tmp_path / "cards")
    torn.write_bytes(whole)
    (jobs[-1].folder / "metrics.json").unlink()
    write_study(study_config(tmp_path), jobs, [], {})
    with pytest.raises(UserError, match="1 runs are not finished"):
        collect_study(tmp_path / "study", tmp_path / "cards")
    assert not (tmp_path / "cards").exists()
    (tmp_path / "README.md").write_text("# Here\n")
    with pytest.raises(UserError, match="one place for the results"):
        renew_readme(tmp_path / "README.md", tmp_path / "cards")
