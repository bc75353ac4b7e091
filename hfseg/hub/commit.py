"""Files to the Hub: one commit, which is read back."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from hfseg.errors import HubTransferError
from hfseg.hub.failures import TRANSFER_ERRORS, explained, next_step, reason
from hfseg.hub.public_files import Files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushResult:
    """Where a push has gone: read back from there, and equal to what was sent."""

    repo: str
    commit: str  # its head: the new commit, or the one that had everything already
    url: str  # of the repository, its branch or the pull request
    is_new: bool  # False where everything was there


def push_files(
    files: Files,
    repo: str,
    message: str,
    revision: str | None = None,
    private: bool = True,
    create_pr: bool = False,
    token: str | None = None,
) -> PushResult:
    """Sends files as one commit to a repository that `check_access` has seen, and reads it back.

    Raises:
        HubTransferError: the transfer failed; says what has reached the repository.
    """
    hub = HfApi(token=token)
    doing = f"Publishing to {repo}"
    with explained(doing, "Nothing was published."):
        head = _open(hub, repo, revision, private, create_pr)
        refs = hub.list_repo_refs(repo, include_pull_requests=True).pull_requests if create_pr else None
        for place in [revision, *(each.ref for each in refs or ())]:
            if not _differences(hub, repo, place, files):
                logger.warning("%s already has everything: no commit was made.", repo)
                return PushResult(repo, str(hub.model_info(repo, revision=place).sha), _url(hub, repo, place), False)
    try:
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        info = hub.create_commit(repo, operations, commit_message=message, revision=revision, create_pr=create_pr)
        commit, url = info.oid, info.pr_url or _url(hub, repo, revision)
    except TRANSFER_ERRORS as error:
        reached, arrived = _what_reached(hub, repo, revision, head, {} if create_pr else files)
        if arrived is None:
            raise HubTransferError(f"{doing} failed: {reason(error)} {reached} {next_step(error)}") from error
        commit, url = arrived, _url(hub, repo, revision)  # only the answer was lost
    with explained(doing, f"The commit {commit} has reached it, but could not be read back."):
        wrong = _differences(hub, repo, commit, files)
    if wrong:
        raise HubTransferError(
            f"{doing}: the commit {commit} has reached it, but {', '.join(wrong)} there is not what was sent. "
            "Run the same command again."
        )
    return PushResult(repo, commit, url, True)


def _open(hub: HfApi, repo: str, revision: str | None, private: bool, create_pr: bool) -> str | None:
    """Makes the repository and the branch where they are missing; returns the commit at its head."""
    try:
        return hub.model_info(repo, revision=revision).sha
    except RepositoryNotFoundError:
        hub.create_repo(repo, private=private, exist_ok=True)
    except RevisionNotFoundError:
        pass
    if revision is not None and not create_pr:
        hub.create_branch(repo, branch=revision, exist_ok=True)
    return hub.model_info(repo, revision=revision).sha


def _differences(hub: HfApi, repo: str, revision: str | None, files: Files) -> list[str]:
    """Names of the files that are missing there, or other ones, by sha256 (large files) or git's own sum."""
    there = {info.path: info for info in hub.get_paths_info(repo, sorted(files), revision=revision)}
    wrong = []
    for name, content in sorted(files.items()):
        info = there.get(name)
        if info is None or (
            _git_sum(content) != info.blob_id if info.lfs is None else _sha256(content) != info.lfs.sha256
        ):
            wrong.append(name)
    return wrong


def _what_reached(
    hub: HfApi, repo: str, revision: str | None, head: str | None, files: Files
) -> tuple[str, str | None]:
    """A sentence, and the commit where everything has arrived after all."""
    try:
        now = hub.model_info(repo, revision=revision).sha
        if now == head:
            return "Nothing was published: the repository is as it was.", None
        if files and not _differences(hub, repo, now, files):
            return "", now
    except TRANSFER_ERRORS:
        return "Whether the commit has arrived cannot be learned now; a second push makes no second commit.", None
    return f"Nothing of this run was published; another commit, {now}, has come meanwhile.", None


def _url(hub: HfApi, repo: str, revision: str | None) -> str:
    if revision is not None and revision.startswith("refs/pr/"):
        return f"{hub.endpoint}/{repo}/discussions/{revision.removeprefix('refs/pr/')}"
    return f"{hub.endpoint}/{repo}" + (f"/tree/{revision}" if revision else "")


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sum(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
