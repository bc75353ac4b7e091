"""push and pull with the real client: what arrives is what was sent, and nothing else is sent."""

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from transformers import TrainingArguments

from hfseg import HubTransferError, LabelSet, SegTrainer, UserError, publish_finished, pull, push, run
from hfseg.config import ModelConfig
from hfseg.hub import check_access, model_files, public_files
from hfseg.models import build_model
from hfseg.runs import public_config
from tests.builders import USER, config_of, environment, make_model, segment
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

LFS = pytest.mark.parametrize("hub", ["lfs"], indirect=True)  # for what both ways have in common
NEVER = ("training_args.bin", "optimizer", "scheduler", "rng_state", "checkpoint", "trainer_state")


def check_round_trip(hub: HubServer, run_dir: Path, private: bool, revision: str | None, create_pr: bool) -> None:
    before = segment(run_dir / "model")
    first = push(run_dir, "tester/tiny", private=private, revision=revision, create_pr=create_pr)
    again = push(run_dir, "tester/tiny", private=private, revision=revision, create_pr=create_pr)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.commit == first.commit
    assert hub.repo("tester/tiny").private is private
    place = "refs/pr/1" if create_pr else revision or "main"
    titles = [commit.title for commit in hub.repo("tester/tiny").history(place)]
    assert titles == [f"Publish {run_dir.name}", "initial commit"]
    assert ("model.safetensors" in hub.files("tester/tiny")) is (place == "main")
    assert first.url.startswith(f"{hub.endpoint}/tester/tiny")
    folder = pull("tester/tiny", place)
    assert folder.name == first.commit
    sent, arrived = (load_file(path / "model.safetensors") for path in (run_dir / "model", folder))
    assert sent.keys() == arrived.keys()
    assert all(torch.equal(sent[name], arrived[name]) and sent[name].dtype == arrived[name].dtype for name in sent)
    assert segment(folder) == before
    if place == "main":
        assert segment("tester/tiny") == before


@pytest.mark.parametrize(
    ("private", "revision", "create_pr"),
    [(True, None, False), (False, None, False), (True, "better", False), (True, None, True)],
    ids=["private", "public", "branch", "pull request"],
)
def test_push_then_pull(
    hub: HubServer, small_runs: dict[str, Path], private: bool, revision: str | None, create_pr: bool
) -> None:
    check_round_trip(hub, small_runs["segformer"], private, revision, create_pr)


@pytest.mark.parametrize("hub", ["lfs", pytest.param("xet", marks=pytest.mark.slow)], indirect=True)
def test_push_then_pull_fcn(hub: HubServer, small_runs: dict[str, Path]) -> None:
    check_round_trip(hub, small_runs["fcn"], True, None, False)
    assert {"modeling_fcn.py", "configuration_fcn.py"} <= hub.files("tester/tiny").keys()


@LFS
def test_files_and_nothing_private(hub: HubServer, small_runs: dict[str, Path]) -> None:
    run_dir = small_runs["segformer"]
    push(run_dir, "tester/tiny", token=hub.write_token)
    files = hub.files("tester/tiny")
    assert files.keys() >= {
        "README.md", "config.json", "figures/curves.png", "history.jsonl", "metrics.json", "model.safetensors",
        "per_class.json", "preprocessor_config.json", "provenance.json", "run_config.yaml",
    }  # fmt: skip
    assert not [name for name in files if any(word in name for word in (*NEVER, "predictions", "report"))]
    for name in ("metrics.json", "per_class.json", "figures/curves.png"):
        assert files[name] == (run_dir / name).read_bytes()
    config = yaml.safe_load(files["run_config.yaml"])
    assert config["data"]["root"] == "<root>"
    assert config["output_dir"] == "segformer"
    assert config["train"]["max_steps"] == 2
    card = ModelCard(files["README.md"].decode())
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-segmentation", "transformers")
    everything = hub.sent()
    assert b"pet" in everything  # the log has what was sent
    for secret in (USER, str(Path.home()), str(run_dir.parent), str(REPOSITORY), hub.write_token):
        assert not re.search(rb"(?<![\w.>])" + re.escape(secret.encode()), everything), secret


@LFS
def test_pictures_of_data_are_sent_on_request_only(hub: HubServer, small_runs: dict[str, Path]) -> None:
    push(small_runs["segformer"], "tester/tiny", images=True)
    assert "figures/predictions.png" in hub.files("tester/tiny")


def test_public_form_of_a_config(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    tree = {
        "output_dir": "runs/x",
        "data": {"root": "data/pets", "classes": "lists/classes.txt"},
        "model": {"init": str(tmp_path / "weights")},
        "train": {"deepspeed": "/home/me/ds.json", "report_to": ["~/somewhere", "none"]},
    }
    assert public_config(tree) == {
        "output_dir": "runs/x",
        "data": {"root": "<root>", "classes": "lists/classes.txt"},
        "model": {"init": "./weights"},
        "train": {"deepspeed": "ds.json", "report_to": ["somewhere", "none"]},
    }
    assert public_config(tree | {"model": {"init": "nvidia/mit-b0"}})["model"]["init"] == "nvidia/mit-b0"


@LFS
def test_a_token_in_a_file_is_refused(hub: HubServer) -> None:
    for secret in ("note: hf_" + "a1" * 17, hub.write_token):
        with pytest.raises(UserError, match=r"notes\.json holds a token"):
            public_files({"notes.json": f"{{{secret}}}"}, {})


@LFS
def test_weights_come_from_a_pinned_snapshot(hub: HubServer, finished_run: Path, labels: LabelSet) -> None:
    push(finished_run, "tester/b0")
    hub.log.clear()
    model = build_model(ModelConfig(init="tester/b0", size="b0"), labels)
    saved = load_file(finished_run / "model" / "model.safetensors")
    state = model.state_dict()
    changed = [name for name in saved if not torch.equal(saved[name], state[name])]
    assert not [name for name in changed if not name.endswith("num_batches_tracked")]
    head = hub.repo("tester/b0").head.oid
    assert {request.path.split("/resolve/")[1].split("/")[0] for request in hub.requests("/resolve/")} <= {head}
    hub.stop()  # what was pulled is there without the Hub
    assert pull("tester/b0").name == head


@LFS
def test_command_line(hub: HubServer, small_runs: dict[str, Path]) -> None:
    command = [sys.executable, "scripts/run_seg.py", "--push", str(small_runs["segformer"])]
    options = {"cwd": REPOSITORY, "capture_output": True, "text": True}
    done = subprocess.run([*command, "hub.repo=tester/cli"], env=environment(), **options)
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.endpoint}/tester/cli (commit {hub.repo('tester/cli').head.oid})" in done.stdout
    assert "model.safetensors" in hub.files("tester/cli")


@LFS
@pytest.mark.slow
def test_command_line_with_a_token_that_cannot_write(hub: HubServer, small_runs: dict[str, Path]) -> None:
    command = [sys.executable, "scripts/run_seg.py", "--push", str(small_runs["segformer"])]
    options = {"cwd": REPOSITORY, "capture_output": True, "text": True}
    refused = subprocess.run(
        [*command, "hub.repo=tester/b"], env=environment() | {"HF_TOKEN": hub.read_token}, **options
    )
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: The token of tester has no write permission")
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("overrides", "message"),
    [([], "hub.repo is not set"), (["train.max_steps=1", "hub.repo=a/b"], "--push takes hub. keys only")],
)
def test_a_push_without_a_goal(small_runs: dict[str, Path], overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        publish_finished(small_runs["segformer"], overrides)


@LFS
def test_a_run_publishes_while_and_after_it_trains(hub: HubServer, pets: Path, tmp_path: Path) -> None:
    section = {"repo": "tester/live", "revision": "trial"}
    config = config_of(tmp_path / "live", pets, hub=section)
    run(config.model_copy(update={"train": config.train | {"push_to_hub": True, "hub_strategy": "every_save"}}))
    history = hub.repo("tester/live").history("trial")
    assert [commit.title for commit in history] == [
        "Publish live", "Training in progress, step 2", "Training in progress, step 1", "initial commit",
    ]  # fmt: skip
    progress = hub.files("tester/live", history[1].oid)
    assert progress.keys() == {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert b"A training in progress" in progress["README.md"]
    published = hub.files("tester/live", "trial")
    assert published["README.md"] == (tmp_path / "live" / "README.md").read_bytes()
    assert not [path for path in (tmp_path / "live").glob("**/training_args.bin") if "checkpoint-" not in str(path)]
    for word in NEVER:
        assert word.encode() not in b"".join(name.encode() for name in published)
    assert hub.write_token.encode() not in hub.sent()
    assert str(tmp_path).encode() not in hub.sent()


@LFS
def test_a_hub_that_goes_away_does_not_stop_a_training(
    hub: HubServer, pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail("POST .*/commit/", 500, times=1)
    config = config_of(tmp_path / "live", pets, hub={"repo": "tester/live"})
    with caplog.at_level(logging.WARNING, "hfseg"):
        run(config.model_copy(update={"train": config.train | {"push_to_hub": True}}))
    assert "The training goes on." in caplog.text
    assert hub.repo("tester/live").head.title == "Publish live"


@LFS
def test_a_trainer_of_ones_own(hub: HubServer, labels: LabelSet, tmp_path: Path) -> None:
    args = TrainingArguments(output_dir=str(tmp_path / "out"), push_to_hub=True, hub_model_id="mine")
    model = make_model("segformer", labels)
    trainer = SegTrainer(model=model, args=args, labels=labels)
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    trainer.create_model_card()
    trainer.push_to_hub()
    files = hub.files("tester/mine")
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert b"Mine." in files["README.md"]
    assert hub.repo("tester/mine").private
    with pytest.raises(UserError, match="sends the optimizer"):
        SegTrainer(
            model=model,
            args=TrainingArguments(output_dir=str(tmp_path), push_to_hub=True, hub_strategy="checkpoint"),
            labels=labels,
        )


@LFS
def test_the_rights_are_looked_at_before_the_training(
    hub: HubServer, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    with pytest.raises(UserError, match="no write permission"):
        run(config_of(tmp_path / "late", pets, hub={"repo": "tester/late"}))
    assert not (tmp_path / "late").exists()


@LFS
def test_the_card_names_the_repository_it_is_in(hub: HubServer, small_runs: dict[str, Path], tmp_path: Path) -> None:
    run_dir = shutil.copytree(small_runs["segformer"], tmp_path / "run")
    own = (run_dir / "README.md").read_text(encoding="utf-8")
    assert "tester/tiny" not in own
    push(run_dir, "tiny", images=True)
    card = hub.files("tester/tiny")["README.md"].decode()
    assert 'model="tester/tiny")' in card
    assert "segformer/model" not in card
    assert "](figures/predictions.png)" in card
    assert (run_dir / "README.md").read_text(encoding="utf-8") == own
    (run_dir / "README.md").write_text(own.replace("# tiny", "# My own words, ümläut"), encoding="utf-8")
    push(run_dir, "tester/tiny")
    assert "# My own words, ümläut" in hub.files("tester/tiny")["README.md"].decode()


@LFS
def test_revisions_that_git_does_not_allow(hub: HubServer, small_runs: dict[str, Path]) -> None:
    for revision in ("..", "a..b", "with space", "-x", "a/", "a//b", "a.lock", "x~2", "/a", ""):
        with pytest.raises(UserError, match="is not allowed as a revision"):
            push(small_runs["segformer"], "tester/tiny", revision=revision)
        with pytest.raises(UserError, match="is not allowed as a revision"):
            pull("tester/tiny", revision)
    assert not hub.log
    for revision in ("refs/pr/1", "feature/x", "v1.0", "ünï", "f7d3a0"):
        check_access("tester/tiny", revision=revision)
    with pytest.raises(HubTransferError, match=r"nope.*Nothing was published\. Check the name and the revision"):
        push(small_runs["segformer"], "tester/tiny", revision="nope", create_pr=True)


@LFS
def test_a_repository_without_a_model_is_not_pulled(hub: HubServer) -> None:
    HfApi().create_repo("tester/empty")
    with pytest.raises(HubTransferError, match="tester/empty holds no config and no safetensors"):
        pull("tester/empty")


def test_no_token_in_a_checkpoint_and_no_torn_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"id2label": {"0": "hf_' + "a1" * 17 + '"}}')
    with pytest.raises(UserError, match=r"config\.json holds a token"):
        public_files(model_files(tmp_path), {})
    (tmp_path / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"config\.json is torn"):
        public_files(model_files(tmp_path), {})


def test_a_run_that_only_scores_has_nothing_to_publish(small_runs: dict[str, Path], tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("model", "curves.png")
    run_dir = shutil.copytree(small_runs["segformer"], tmp_path / "run", ignore=ignored)
    with pytest.raises(UserError, match=r"only scores `model\.init` has no weights of its own"):
        push(run_dir, "tester/tiny")
