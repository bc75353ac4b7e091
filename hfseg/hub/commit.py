"""Files to the Hub: one commit, which is read back."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from hfseg.errors import HubTransferError
from hfseg.hub.access import Kind
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
    kind: Kind = "model",
    folder: str | None = None,
) -> PushResult:
    """Sends files as one commit to a repository that `check_access` has seen, and reads it back.

    What else there is in the repository's `folder` is removed by the same commit.

    Raises:
        HubTransferError: the transfer failed; says what has reached the repository.
    """
    place = _Place(HfApi(token=token), repo, kind, folder)
    doing = f"Publishing to {repo}"
    with explained(doing, "Nothing was published."):
        head = place.open(revision, private, create_pr)
        for branch in [revision, *(place.pull_requests() if create_pr else [])]:
            if not place.differences(branch, files):
                logger.warning("%s already has everything: no commit was made.", repo)
                return PushResult(repo, place.head(branch), place.url(branch), False)
        stale = place.stale(revision, files)
    try:
        operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
        operations += [CommitOperationDelete(name) for name in stale]
        info = place.hub.create_commit(
            repo, operations, commit_message=message, revision=revision, create_pr=create_pr, repo_type=kind
        )
        commit, url = info.oid, info.pr_url or place.url(revision)
    except TRANSFER_ERRORS as error:
        reached, arrived = place.what_reached(revision, head, {} if create_pr else files)
        if arrived is None:
            raise HubTransferError(f"{doing} failed: {reason(error)} {reached} {next_step(error)}") from error
        commit, url = arrived, place.url(revision)  # only the answer was lost
    with explained(doing, f"The commit {commit} has reached it, but could not be read back."):
        wrong = place.differences(commit, files)
    if wrong:
        raise HubTransferError(
            f"{doing}: the commit {commit} has reached it, but {', '.join(wrong)} there is not what was sent. "
            "Run the same command again."
        )
    return PushResult(repo, commit, url, True)


@dataclass(frozen=True)
class _Place:
    """A repository, and the folder in it that is to hold nothing but what is sent."""

    hub: HfApi
    repo: str
    kind: Kind
    folder: str | None

    def head(self, revision: str | None) -> str:
        return str(self.hub.repo_info(self.repo, revision=revision, repo_type=self.kind).sha)

    def open(self, revision: str | None, private: bool, create_pr: bool) -> str:
        """Makes the repository and the branch where they are missing; returns the commit at its head."""
        try:
            return self.head(revision)
        except RepositoryNotFoundError:
            self.hub.create_repo(self.repo, private=private, exist_ok=True, repo_type=self.kind)
        except RevisionNotFoundError:
            pass
        if revision is not None and not create_pr:
            self.hub.create_branch(self.repo, branch=revision, exist_ok=True, repo_type=self.kind)
        return self.head(revision)

    def pull_requests(self) -> list[str]:
        refs = self.hub.list_repo_refs(self.repo, include_pull_requests=True, repo_type=self.kind)
        return [each.ref for each in refs.pull_requests or ()]

    def stale(self, revision: str | None, files: Files) -> list[str]:
        """Files there in the folder that are not sent."""
        if self.folder is None:
            return []
        names = self.hub.list_repo_files(self.repo, revision=revision, repo_type=self.kind)
        return [name for name in names if name.startswith(f"{self.folder}/") and name not in files]

    def differences(self, revision: str | None, files: Files) -> list[str]:
        """Names of the files that are missing there, or other ones, by sha256 (large files) or git's own sum; and of
        those that should not be there.
        """
        found = self.hub.get_paths_info(self.repo, sorted(files), revision=revision, repo_type=self.kind)
        there = {info.path: info for info in found}
        wrong = []
        for name, content in sorted(files.items()):
            info = there.get(name)
            if info is None or (
                _git_sum(content) != info.blob_id if info.lfs is None else _sha256(content) != info.lfs.sha256
            ):
                wrong.append(name)
        return wrong + self.stale(revision, files)

    def what_reached(self, revision: str | None, head: str, files: Files) -> tuple[str, str | None]:
        """A sentence, and the commit where everything has arrived after all."""
        try:
            now = self.head(revision)
            if now == head:
                return "Nothing was published: the repository is as it was.", None
            if files and not self.differences(now, files):
                return "", now
        except TRANSFER_ERRORS:
            return "Whether the commit has arrived cannot be learned now; a second push makes no second commit.", None
        return f"Nothing was published; another commit, {now}, has come meanwhile.", None

    def url(self, revision: str | None) -> str:
        base = f"{self.hub.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}"
        if revision is not None and revision.startswith("refs/pr/"):
            return f"{base}/discussions/{revision.removeprefix('refs/pr/')}"
        return base + (f"/tree/{revision}" if revision else "")


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sum(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
