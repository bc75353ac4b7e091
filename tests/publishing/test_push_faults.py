"""Each failure of a transfer has one clear message and leaves nothing half-done; the same call then succeeds."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file

from hfseg import HubTransferError, UserError, pull, push
from hfseg.config import ModelConfig
from hfseg.hub import push_files
from hfseg.labels import LabelSet
from hfseg.models import build_model
from tests.builders import NEWER_CLIENT, environment
from tests.hub.server import HubServer

ALWAYS = float("inf")
PUSH = "import sys, hfseg; hfseg.push(sys.argv[1], 'tester/tiny')"
PULL = "import sys, hfseg; print(hfseg.pull('tester/tiny'))"
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000)); " + PULL
UNCHANGED = "Nothing was published: the repository is as it was."
LFS = pytest.mark.parametrize("hub", ["lfs"], indirect=True)
SLOW = pytest.mark.slow
XET = pytest.mark.parametrize("hub", ["xet"], indirect=True)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client sleeps up to 23 s between its attempts."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


@pytest.fixture
def run_dir(small_runs: dict[str, Path]) -> Path:
    return small_runs["segformer"]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's downloads go, in subprocesses too."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def is_whole(folder: Path, run_dir: Path) -> bool:
    sent, arrived = (load_file(path / "model.safetensors") for path in (run_dir / "model", folder))
    return all((sent[name] == arrived[name]).all() for name in sent) and sent.keys() == arrived.keys()


def check_failed_push(hub: HubServer, run_dir: Path, *words: str) -> None:
    """It fails soon with these words, nothing is to be seen of it, and without the fault it succeeds."""
    start = time.monotonic()
    with pytest.raises(HubTransferError) as caught:
        push(run_dir, "tester/tiny")
    assert time.monotonic() - start < 10
    for word in ("tester/tiny", *words):
        assert word in str(caught.value)
    assert hub.write_token not in str(caught.value)
    hub.faults.clear()
    if not hub.listeners:
        hub.start()
    if ("models", "tester/tiny") in hub.storage.repos:
        assert not hub.files("tester/tiny")
    assert push(run_dir, "tester/tiny").is_new
    assert len(hub.repo("tester/tiny").history()) == 2


@LFS
@pytest.mark.parametrize(
    ("match", "status", "words"),
    [
        ("whoami", 401, ("The token is not accepted", "Nothing was sent.")),
        ("whoami", 500, ("500", "Nothing was sent.")),
        ("POST .*/repos/create", 403, ("Nothing was published.", "write permission")),
        ("POST .*/preupload/", 404, (UNCHANGED, "Check the name")),
        ("PUT /lfs", 507, (UNCHANGED, "There is no room left there")),
        ("POST .*/commit/", 401, (UNCHANGED, "The token is not accepted")),
        ("POST .*/commit/", 403, (UNCHANGED, "write permission")),
        ("POST .*/commit/", 409, (UNCHANGED, "Something else is changing the repository")),
        ("POST .*/commit/", 500, (UNCHANGED, "run the same command again")),
    ],
)
def test_a_push_that_is_refused(
    hub: HubServer, run_dir: Path, match: str, status: int, words: tuple[str, ...]
) -> None:
    hub.fail(match, status, times=ALWAYS)
    check_failed_push(hub, run_dir, *words)


@NEWER_CLIENT
@XET
@pytest.mark.parametrize(("match", "status"), [("xet-write-token", 401), ("POST .*/commit/", 500)])
def test_a_push_that_is_refused_over_xet(hub: HubServer, run_dir: Path, match: str, status: int) -> None:
    hub.fail(match, status, times=ALWAYS)
    check_failed_push(hub, run_dir, UNCHANGED, str(status))


@LFS
def test_a_push_that_is_cut(hub: HubServer, run_dir: Path) -> None:
    hub.fail("PUT /lfs", up=5000, times=ALWAYS)
    check_failed_push(hub, run_dir, "Error while uploading", UNCHANGED, "Check the connection")


def test_a_dead_hub(hub: HubServer, run_dir: Path) -> None:
    hub.stop()
    check_failed_push(hub, run_dir, "Connection refused", "Nothing was sent.", "Check the connection")


def test_the_answer_to_a_commit_is_lost(hub: HubServer, run_dir: Path) -> None:
    hub.fail("POST .*/commit/", down=0)
    result = push(run_dir, "tester/tiny")
    assert result.commit == hub.repo("tester/tiny").head.oid
    assert [commit.title for commit in hub.repo("tester/tiny").history()] == ["Publish segformer", "initial commit"]


@LFS
def test_what_arrived_is_compared(hub: HubServer, run_dir: Path) -> None:
    push(run_dir, "tester/tiny")
    head = hub.repo("tester/tiny").head.oid
    hub.fail("POST .*/paths-info/", 500, times=ALWAYS)
    with pytest.raises(HubTransferError, match=r"Nothing was published.*"):
        push_files({"a.txt": b"a"}, "tester/tiny", "more")
    hub.faults.clear()
    assert hub.repo("tester/tiny").head.oid == head
    hub.storage.change = lambda files, key, value: None  # type: ignore[method-assign]  # a Hub that forgets
    try:
        with pytest.raises(HubTransferError, match=r"the commit \w{40} has reached it, but a\.txt there is not"):
            push_files({"a.txt": b"a"}, "tester/tiny", "more")
    finally:
        del hub.storage.change


@LFS
@pytest.mark.parametrize(
    ("repo", "message"),
    [("me/a/b", "owner/name"), ("datasets/me/a", "owner/name"), ("me/a--b", "owner/name"), ("", "owner/name"),
     ("someone/else", "may publish under tester, not under someone")],
)  # fmt: skip
def test_a_name_that_is_not_allowed(hub: HubServer, run_dir: Path, repo: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        push(run_dir, repo)
    assert not hub.requests("POST")


@LFS
def test_tokens_that_will_not_do(
    hub: HubServer, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token, message in (
        (hub.read_token, "The token of tester has no write permission"),
        ("hf_of_nobody", "The token is not accepted"),
        (hub.stranger_token, "may publish under stranger"),
    ):
        with pytest.raises(UserError, match=message):
            push(run_dir, "tester/tiny", token=token)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="needs a token, and there is none"):
        push(run_dir, "tester/tiny")
    assert not hub.requests("POST")
    assert ("models", "tester/tiny") not in hub.storage.repos


@LFS
def test_a_repository_of_another_kind(hub: HubServer, run_dir: Path, labels: LabelSet) -> None:
    api = HfApi()
    api.create_repo("tester/pets", repo_type="dataset")
    with pytest.raises(UserError, match="tester/pets is a data set of the Hub: choose another name"):
        push(run_dir, "tester/pets")
    with pytest.raises(HubTransferError, match="tester/pets is a data set of the Hub, not a model"):
        build_model(ModelConfig(init="tester/pets"), labels)
    api.create_repo("tester/seen", private=False)
    with pytest.raises(UserError, match=r"everybody can see it.*hub\.private=false"):
        push(run_dir, "tester/seen")
    assert push(run_dir, "tester/seen", private=False).is_new


@LFS
@pytest.mark.parametrize("missing", ["metrics.json", "model", "README.md", "model/preprocessor_config.json"])
def test_a_run_that_is_not_finished(hub: HubServer, run_dir: Path, tmp_path: Path, missing: str) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run")
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    with pytest.raises(UserError, match=f"is not finished, it lacks .*{re.escape(missing)}"):
        push(copy, "tester/tiny")
    assert not hub.log
    with pytest.raises(UserError, match="There is no run in"):
        push(tmp_path / "nothing", "tester/tiny")


@LFS
@pytest.mark.parametrize("name", ["metrics.json", "model/model.safetensors", "run_config.yaml"])
def test_a_torn_file(hub: HubServer, run_dir: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run")
    (copy / name).write_bytes((copy / name).read_bytes()[:60])
    with pytest.raises(UserError, match=f"{re.escape(name)} is torn"):
        push(copy, "tester/tiny")
    assert not hub.log


@LFS
@pytest.mark.parametrize("field", ["pipeline_tag", "library_name", "license", "model-index"])
def test_a_card_without_a_field(hub: HubServer, run_dir: Path, tmp_path: Path, field: str) -> None:
    copy = shutil.copytree(run_dir, tmp_path / "run")
    _, head, body = (copy / "README.md").read_text().split("---\n", 2)
    data = {key: value for key, value in yaml.safe_load(head).items() if key != field}
    (copy / "README.md").write_text(f"---\n{yaml.safe_dump(data)}---\n{body}")
    with pytest.raises(UserError, match=rf"README\.md is not ready to be published:\n  `{field}` "):
        push(copy, "tester/tiny")
    assert not hub.log


@NEWER_CLIENT
@LFS
def test_a_pull_that_fails_and_then_succeeds(hub: HubServer, run_dir: Path, empty_cache: Path) -> None:
    push(run_dir, "tester/tiny")
    for match, fault, words in (
        ("GET /lfs", {"down": 3000}, "Check the connection"),
        ("GET /lfs", {"status": 404}, "Check the name"),
        ("GET /api/models", {"status": 500}, "500"),
        ("GET /api/models", {"status": 403}, "403"),
    ):
        hub.fail(match, times=ALWAYS, **fault)
        start = time.monotonic()
        with pytest.raises(HubTransferError, match=f"Downloading tester/tiny failed.*{words}"):
            pull("tester/tiny")
        assert time.monotonic() - start < 10
        hub.faults.clear()
    hub.fail("GET /lfs", down=3000)  # once: the client goes on by itself
    assert is_whole(pull("tester/tiny"), run_dir)


@LFS
def test_a_pull_of_what_is_not_there(hub: HubServer, run_dir: Path, empty_cache: Path, labels: LabelSet) -> None:
    push(run_dir, "tester/tiny")
    with pytest.raises(HubTransferError, match=r"Downloading tester/none failed.*Check the name"):
        pull("tester/none")
    with pytest.raises(HubTransferError, match=r"Downloading tester/tiny at v9 failed.*Check the name"):
        pull("tester/tiny", "v9")
    with pytest.raises(HubTransferError, match=r"Downloading tester/tiny failed"):
        pull("tester/tiny", token=hub.stranger_token)  # it is private
    with pytest.raises(HubTransferError, match=r"model\.init='tester/none' is no folder here and cannot be had"):
        build_model(ModelConfig(init="tester/none"), labels)
    hub.stop()
    with pytest.raises(HubTransferError, match=r"Downloading tester/tiny failed"):
        pull("tester/tiny")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@LFS
@pytest.mark.slow
def test_no_room_for_a_download(hub: HubServer, run_dir: Path, empty_cache: Path) -> None:
    push(run_dir, "tester/tiny")
    _, errors = start(LIMITED).communicate(timeout=100)
    assert "Make room on the disk" in errors.splitlines()[-1]
    assert is_whole(pull("tester/tiny"), run_dir)


@pytest.mark.parametrize(
    ("hub", "match"),
    [("lfs", "PUT /lfs"), pytest.param("xet", "POST .*/commit/", marks=pytest.mark.slow)],
    indirect=["hub"],
)
def test_a_push_that_is_killed(hub: HubServer, run_dir: Path, match: str) -> None:
    fault = hub.fail(match, up=500, hang=100)
    process = start(PUSH, run_dir)
    assert fault.reached.wait(100)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not hub.files("tester/tiny")
    assert push(run_dir, "tester/tiny").is_new
    assert len(hub.repo("tester/tiny").history()) == 2


@pytest.mark.parametrize(
    ("hub", "match"),
    [("lfs", "GET /lfs"), pytest.param("xet", "GET .*xet-read-token", marks=pytest.mark.slow)],
    indirect=["hub"],
)
@NEWER_CLIENT
def test_a_pull_that_is_killed(hub: HubServer, run_dir: Path, match: str, empty_cache: Path) -> None:
    push(run_dir, "tester/tiny")
    fault = hub.fail(match, down=5000 if "lfs" in match else 0, hang=100)
    process = start(PULL)
    assert fault.reached.wait(100)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.stop()
    with pytest.raises(HubTransferError, match=r"is incomplete.*Check the connection"):
        pull("tester/tiny")  # half a snapshot is none
    hub.start()
    assert is_whole(pull("tester/tiny"), run_dir)
