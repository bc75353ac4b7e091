"""The real client against the loopback Hub: what the tests of publishing rest upon."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, RepoCard, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoModelForSemanticSegmentation, SegformerConfig, SegformerForSemanticSegmentation

from tests.builders import NEWER_CLIENT
from tests.hub.server import HubServer

REPO = "tester/model"
only_lfs = pytest.mark.parametrize("hub", ["lfs"], indirect=True)  # what does not differ, or is no HTTP in Xet


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    return HfApi()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A card, a small file in a folder and a large one."""
    root = tmp_path / "upload"
    (root / "figures").mkdir(parents=True)
    (root / "README.md").write_text("---\nlicense: mit\nlibrary_name: transformers\n---\n# A model\n")
    (root / "figures" / "a.txt").write_text("figure")
    (root / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(300_000))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def add(path: str, content: bytes = b"content") -> list[CommitOperationAdd]:
    return [CommitOperationAdd(path, content)]


@contextmanager
def refusal(status: int) -> Iterator[None]:
    with pytest.raises(HfHubHTTPError) as error:
        yield
    assert error.value.response.status_code == status


def test_a_folder_there_and_back(hub: HubServer, api: HfApi, folder: Path, tmp_path: Path) -> None:
    api.create_repo(REPO, private=True)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.files(REPO) == contents(folder)
    assert len(hub.repo(REPO).history()) == 2
    head = hub.repo(REPO).head
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.repo(REPO).head == head  # nothing has changed
    found = Path(snapshot_download(REPO, cache_dir=tmp_path / "cache"))
    assert found.name == head.oid
    assert {path: (found / path).read_bytes() for path in contents(folder)} == contents(folder)
    info = api.model_info(REPO, files_metadata=True)
    assert (info.private, info.library_name, info.card_data["license"]) == (True, "transformers", "mit")
    (large,) = [sibling for sibling in info.siblings if sibling.lfs]
    assert (large.rfilename, large.size) == ("model.safetensors", 300_000)
    assert {entry.path for entry in api.list_repo_tree(REPO)} == {
        ".gitattributes", "README.md", "figures", "model.safetensors"
    }  # fmt: skip


def test_both_ways_of_large_files_are_taken(hub: HubServer, api: HfApi, folder: Path, tmp_path: Path) -> None:
    """Fails if hf_xet no longer has its `local://` store, and if a token goes to the storage."""
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    snapshot_download(REPO, cache_dir=tmp_path / "cache")
    oid = hub.repo(REPO).head.files["model.safetensors"].lfs_oid
    by_xet = not hub.requests("(PUT|GET) /lfs")
    assert by_xet == bool(hub.requests("GET .*/xet-write-token/"))
    if by_xet:
        assert hub.storage.large.xet_hash(oid)
    assert all(request.token is None for request in hub.log if request.at_cdn)
    assert {request.token for request in hub.requests("POST .*/commit/main")} == {hub.write_token}
    sent = hub.sent()
    assert hub.write_token.encode() not in sent
    assert all(content in sent for content in contents(folder).values())


def test_a_model_from_branch_tag_and_pull_request(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    config = SegformerConfig(
        hidden_sizes=[4, 4, 4, 4], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=4
    )
    models = [SegformerForSemanticSegmentation(config) for _ in range(3)]
    models[0].push_to_hub(REPO)
    api.create_tag(REPO, tag="v1")
    models[1].push_to_hub(REPO, revision="dev")
    models[2].save_pretrained(tmp_path / "third")
    pull = api.upload_folder(repo_id=REPO, folder_path=tmp_path / "third", create_pr=True)
    assert (pull.pr_num, pull.pr_revision) == (1, "refs/pr/1")
    revisions = {"main": 0, "v1": 0, "dev": 1, "refs/pr/1": 2, hub.repo(REPO).head.oid: 0}
    for revision, index in revisions.items():
        found = AutoModelForSemanticSegmentation.from_pretrained(REPO, revision=revision).state_dict()
        expected = models[index].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in found)
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    names = [[ref.name for ref in kind] for kind in (refs.branches, refs.tags, refs.pull_requests)]
    assert names == [["main", "dev"], ["v1"], ["refs/pr/1"]]
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="dev")
    for revision in ("v1", "dev"):
        with pytest.raises(RevisionNotFoundError):
            api.model_info(REPO, revision=revision)
    api.delete_repo(REPO)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


def test_a_large_file(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(12_000_000)
    api.create_repo(REPO)
    api.create_commit(REPO, add("large.txt", content), commit_message="large")
    assert hub.files(REPO) == {"large.txt": content}
    assert hub.repo(REPO).head.files["large.txt"].lfs_oid
    assert Path(hf_hub_download(REPO, "large.txt", cache_dir=tmp_path)).read_bytes() == content


@only_lfs
def test_commits_upon_another_are_refused(hub: HubServer, api: HfApi) -> None:
    first = api.create_commit(api.create_repo(REPO).repo_id, add("a"), commit_message="a").oid
    api.create_commit(REPO, add("b"), commit_message="b", commit_description="why", parent_commit=first)
    with refusal(412):
        api.create_commit(REPO, add("c"), commit_message="c", parent_commit=first)
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["b", "a", "initial commit"]
    assert set(hub.files(REPO)) == {"a", "b"}


@only_lfs
def test_who_may_do_what(hub: HubServer, api: HfApi) -> None:
    api.create_repo(REPO, private=True)
    api.create_repo("tester/open")
    readers = {"write": hub.write_token, "read": hub.read_token, "stranger": hub.stranger_token, "none": False}
    for name, token in readers.items():
        other = HfApi(token=token)
        assert other.model_info("tester/open").private is False
        if name in ("stranger", "none"):
            with pytest.raises(RepositoryNotFoundError):
                other.model_info(REPO)
        if name != "write":
            with refusal(401 if name == "none" else 403):
                other.create_commit("tester/open", add("a"), commit_message="a")
            with refusal(401 if name == "none" else 403):
                other.create_repo("tester/new")
    stranger = HfApi(token=hub.stranger_token)
    assert stranger.create_commit("tester/open", add("a"), commit_message="a", create_pr=True).pr_num == 1
    with refusal(401):
        HfApi(token="hf_wrong").whoami()
    assert api.whoami()["auth"]["accessToken"]["role"] == "write"
    with refusal(409):
        api.create_repo(REPO)
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(REPO)  # the wrong type
    assert set(hub.files("tester/open")) == set()


RESULT = {"task": {"type": "image-segmentation"}, "dataset": {"type": "pets", "name": "Pets"},
          "metrics": [{"type": "mean_iou", "value": 0.5}]}  # fmt: skip


@NEWER_CLIENT
@only_lfs
@pytest.mark.usefixtures("hub")
def test_cards_are_checked(folder: Path) -> None:
    def card(text: str) -> RepoCard:
        return RepoCard(f"---\n{text}\n---\n# Title\n", ignore_metadata_errors=True)

    def index(**change: object) -> str:
        return f"license: mit\nmodel-index: [{{name: m, results: [{RESULT | change}]}}]"

    card(index()).validate()
    wrong = {
        index(dataset={"type": "pets"}): r"dataset\.name",
        index(metrics=[{"type": "mean_iou"}]): r"metrics\[0\]\.value",
        index(task={}): r"results\[0\]\.task",
        "license: my-own": "license",
        "tags: one": "tags",
        "base_model: /home/me/model": "base_model",
    }
    for text, said in wrong.items():
        with pytest.raises(ValueError, match=said):
            card(text).validate()
    (folder / "README.md").write_text("---\na: [1\n---\n")
    with pytest.raises(ValueError, match="Invalid metadata"):
        HfApi().upload_file(path_or_fileobj=folder / "README.md", path_in_repo="README.md", repo_id=REPO)


# --- faults


@NEWER_CLIENT
@only_lfs
@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_is_cut_goes_on(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(12_000_000)
    api.create_commit(api.create_repo(REPO).repo_id, add("a.bin", content), commit_message="a")
    hub.fail("GET /lfs", down=11_000_000)
    assert Path(hf_hub_download(REPO, "a.bin", cache_dir=tmp_path)).read_bytes() == content
    ranges = [request.headers.get("range") for request in hub.requests("GET /lfs")]
    assert ranges == [None, "bytes=10485760-"]


@NEWER_CLIENT
@only_lfs
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("fault", [{"up": 100_000}, {"down": 0}, {"status": 503}])
def test_an_upload_that_is_cut_is_sent_again(hub: HubServer, api: HfApi, folder: Path, fault: dict[str, int]) -> None:
    api.create_repo(REPO)
    hub.fail("PUT /lfs", **fault)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    assert hub.files(REPO) == contents(folder)
    sizes = [len(request.body) for request in hub.requests("PUT /lfs")]
    assert sizes == [100_000 if "up" in fault else 300_000, 300_000]


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("status", [401, 403, 404, 409, 500, 507])
def test_planned_answers(hub: HubServer, api: HfApi, folder: Path, status: int) -> None:
    api.create_repo(REPO)
    hub.fail("/commit/", status, times=9)
    with refusal(status):
        api.create_commit(REPO, add("model.safetensors", b"weights"), commit_message="a")
    assert hub.files(REPO) == {}
    hub.faults.clear()
    api.create_commit(REPO, add("model.safetensors", b"weights"), commit_message="a")
    assert set(hub.files(REPO)) == {"model.safetensors"}


@only_lfs
def test_a_lost_answer_leaves_the_commit(hub: HubServer, api: HfApi) -> None:
    api.create_repo(REPO)
    fault = hub.fail("POST .*/commit/", down=0)
    with pytest.raises(Exception, match="Server disconnected"):
        api.create_commit(REPO, add("a"), commit_message="a")
    assert fault.reached.is_set()
    assert set(hub.files(REPO)) == {"a"}


@only_lfs
def test_a_dead_hub_and_its_return(hub: HubServer, api: HfApi) -> None:
    api.create_repo(REPO)
    endpoint = hub.endpoint
    hub.stop()
    with pytest.raises(Exception, match=r"Connection refused|Server disconnected"):
        api.model_info(REPO)
    hub.start()
    assert hub.endpoint == endpoint
    assert api.model_info(REPO).id == REPO
    hub.fail("GET /api/models", hang=30)
    with pytest.raises(Exception, match="timed out"):
        api.model_info(REPO, timeout=0.2)
