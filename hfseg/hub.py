"""Down from the Hub and up to it, saying what went wrong: one pinned snapshot, one commit that is read back."""

import errno
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from huggingface_hub import CommitOperationAdd, HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of the client's own HTTP library, whichever that is: dead hosts and cut connections are of this type
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from hfseg.errors import HubTransferError, UserError

# The uploads of large files end in RuntimeError, and LFS' refusals, a refused card among them, in ValueError.
TRANSFER_ERRORS = (HTTPError, OSError, RuntimeError, ValueError)
# What is downloaded: weights as safetensors and what lies beside them. No pickles, no other frameworks' weights.
WANTED = ["*.json", "*.jsonl", "*.safetensors", "*.py", "*.md", "*.yaml", "*.npz", "figures/*"]
UNWANTED = ["checkpoint-*", "last-checkpoint/*", "*optimizer*"]
NEXT_STEPS = {
    401: "The token is not accepted: log in again with `hf auth login`.",
    403: "Use a token with write permission for this repository (`hf auth login`), or ask its owner.",
    404: "Check the name and the revision, and that the token may see them.",
    409: "Something else is changing the repository: run the same command again.",
    412: "Something else has changed the repository: run the same command again.",
    429: "The Hub asks for patience: run the same command again in some minutes.",
    507: "There is no room left there: free some of the account's storage, then run the same command again.",
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT)
PULL_REQUEST = "refs/pr/"
REVISION = re.compile(r"\w(?:[\w+@-]|[./](?![./]|lock\b|$))*")  # what git allows, without its odd characters
TRY_AGAIN = "Check the connection, then run the same command again."

Files: TypeAlias = dict[str, bytes | Path]  # by their path in the repository; text as the bytes to send
TEXT = (".json", ".jsonl", ".yaml", ".md", ".html", ".py")
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}")
Hub: TypeAlias = HfApi  # so that signatures below stay short
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PushResult:
    """Where a push has gone: read back from there, and equal to what was sent."""

    repo: str
    commit: str  # its head: the new commit, or the one that had everything already
    url: str  # of the repository, its branch or the pull request
    is_new: bool  # False where everything was there


def publish(
    files: Files,
    repo: str,
    message: str,
    revision: str | None = None,
    private: bool = True,
    create_pr: bool = False,
    token: str | None = None,
) -> PushResult:
    """Sends files as one commit and reads it back; see `hfseg.push`."""
    repo = check_access(repo, private, create_pr, token, revision)
    return commit_files(files, repo, message, revision, private, create_pr, token)


def commit_files(
    files: Files, repo: str, message: str, revision: str | None, private: bool, create_pr: bool, token: str | None
) -> PushResult:
    """Sends files as one commit to a repository that `check_access` has seen, and reads it back.

    Raises:
        HubTransferError: the transfer failed; says what has reached the repository.
    """
    hub = HfApi(token=token)
    doing = f"Publishing to {repo}"
    with _named(doing, "Nothing was published."):
        head = _open(hub, repo, revision, private, create_pr)
        for place in [revision, *(_pull_requests(hub, repo) if create_pr else [])]:
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
            raise HubTransferError(f"{doing} failed: {_reason(error)} {reached} {_next_step(error)}") from error
        commit, url = arrived, _url(hub, repo, revision)  # only the answer was lost
    with _named(doing, f"The commit {commit} has reached it, but could not be read back."):
        wrong = _differences(hub, repo, commit, files)
    if wrong:
        raise HubTransferError(
            f"{doing}: the commit {commit} has reached it, but {', '.join(wrong)} there is not what was sent. "
            "Run the same command again."
        )
    return PushResult(repo, commit, url, True)


def pull(repo: str, revision: str | None = None, token: str | None = None) -> Path:
    """Downloads one revision, so that everything in the folder belongs together: load from there.

    Args:
        repo: `owner/name` of a model.
        revision: a branch, tag or commit; whatever it is, one commit is pinned first. `main` by default.
        token: for private repositories; by default the one of `hf auth login` or `HF_TOKEN`.

    Returns:
        The snapshot's folder, named as the commit: from the cache where the Hub cannot be reached and it is whole.

    Raises:
        UserError: it is no name of a repository, or of a revision.
        HubTransferError: it cannot be had; says why.
    """
    _check_name(repo, revision)
    at = f" at {revision}" if revision else ""
    try:
        with _named(f"Downloading {repo}{at}", "Nothing half-downloaded is used."):
            folder = Path(
                snapshot_download(
                    repo, revision=revision, token=token, allow_patterns=WANTED, ignore_patterns=UNWANTED
                )
            )
    except HubTransferError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError) and _is_data_set(HfApi(token=token), repo):
            raise HubTransferError(f"{repo} is a data set of the Hub, not a model. Give the id of a model.") from error
        raise
    if not any(folder.glob("*")):
        raise HubTransferError(f"{repo}{at} holds no config and no safetensors: there is no model in it.")
    return folder


def check_access(
    repo: str, private: bool = True, create_pr: bool = False, token: str | None = None, revision: str | None = None
) -> str:
    """Looks whether a push could work, before a training or an upload, and changes nothing.

    Returns:
        The repository's full name.

    Raises:
        UserError: a name or a revision that is not allowed; no token, or one without write permission; a repository
            that everybody can see, where a private one is wanted; a data set of that name.
        HubTransferError: the Hub cannot be asked.
    """
    _check_name(repo, revision)
    if (token or get_token()) is None:
        raise UserError(
            f"Publishing to {repo} needs a token, and there is none. Log in with `hf auth login`, or set HF_TOKEN, "
            "with a token that has write permission. Nothing was sent."
        )
    hub = HfApi(token=token)
    with _named(f"Asking the Hub for the rights of the token, for {repo},", "Nothing was sent."):
        owner = hub.whoami(token)
        repo = repo if "/" in repo else f"{owner['name']}/{repo}"
        _check_rights(owner, repo, create_pr)
        try:
            info = hub.model_info(repo)
        except RepositoryNotFoundError:
            if _is_data_set(hub, repo):
                raise UserError(
                    f"hub.repo={repo} is a data set of the Hub: choose another name for the model. Nothing was sent."
                ) from None
        else:
            if private and not create_pr and not info.private:
                raise UserError(
                    f"hub.repo={repo} exists and everybody can see it, but hub.private is true. Set hub.private=false "
                    "to publish there, or choose another repository. Nothing was sent."
                )
    return repo


def _check_name(repo: str, revision: str | None) -> None:
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not allowed as a repository's name: write owner/name. ({error})") from error
    if revision is not None and not REVISION.fullmatch(revision):
        raise UserError(f"{revision!r} is not allowed as a revision: write the name of a branch, such as main or v1.")


def _check_rights(owner: Mapping[str, Any], repo: str, create_pr: bool) -> None:
    """Raises UserError where the token cannot write, as far as it says."""
    access = owner.get("auth", {}).get("accessToken", {})
    role, namespace = access.get("role"), repo.split("/")[0]
    scopes = access.get("fineGrained", {}).get("scoped", [])
    can_write = role != "read" and (
        role != "fineGrained" or any("write" in right for scope in scopes for right in scope.get("permissions", []))
    )
    if not can_write:
        raise UserError(
            f"The token of {owner['name']} has no write permission (it is a {role!r} token), so nothing can be "
            f"published to {repo}. Log in with one that has: `hf auth login`. Nothing was sent."
        )
    own = [owner["name"], *(organisation["name"] for organisation in owner.get("orgs", []))]
    if role == "write" and namespace not in own and not create_pr:
        raise UserError(
            f"hub.repo={repo}: the token's user {owner['name']} may publish under {', '.join(own)}, not under "
            f"{namespace}. Choose one of them, or set hub.create_pr=true. Nothing was sent."
        )


def _open(hub: Hub, repo: str, revision: str | None, private: bool, create_pr: bool) -> str | None:
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


def _pull_requests(hub: Hub, repo: str) -> list[str]:
    return [each.ref for each in hub.list_repo_refs(repo, include_pull_requests=True).pull_requests or []]


def _differences(hub: Hub, repo: str, revision: str | None, files: Files) -> list[str]:
    """Names of the files that are missing there, or other ones, by sha256 (large files) or git's own sum."""
    there = {info.path: info for info in hub.get_paths_info(repo, sorted(files), revision=revision)}
    wrong = []
    for name, content in sorted(files.items()):
        info = there.get(name)
        expected = None if info is None else info.blob_id if info.lfs is None else info.lfs.sha256
        if info is None or expected != (_git_sum(content) if info.lfs is None else _sha256(content)):
            wrong.append(name)
    return wrong


def _what_reached(hub: Hub, repo: str, revision: str | None, head: str | None, files: Files) -> tuple[str, str | None]:
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


def _is_data_set(hub: Hub, repo: str) -> bool:
    try:
        return bool(hub.repo_exists(repo, repo_type="dataset"))
    except TRANSFER_ERRORS:
        return False


def _url(hub: Hub, repo: str, revision: str | None) -> str:
    if revision is not None and revision.startswith(PULL_REQUEST):
        return f"{hub.endpoint}/{repo}/discussions/{revision.removeprefix(PULL_REQUEST)}"
    return f"{hub.endpoint}/{repo}" + (f"/tree/{revision}" if revision else "")


def _sha256(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_sum(content: bytes | Path) -> str:
    data = content if isinstance(content, bytes) else content.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def _named(doing: str, reached: str) -> Iterator[None]:
    """Any failure of a transfer, as one error that says where things stand."""
    try:
        yield
    except UserError:
        raise
    except TRANSFER_ERRORS as error:
        raise HubTransferError(f"{doing} failed: {_reason(error)} {reached} {_next_step(error)}") from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes: the client's own message often hides what happened."""
    return [error, *(_chain(error.__cause__) if error.__cause__ is not None else [])]


def _reason(error: BaseException) -> str:
    texts = [" ".join(str(each).split()) or type(each).__name__ for each in _chain(error)]
    return "; ".join(text[:300].rstrip(".") for text in dict.fromkeys(texts)) + "."


def _next_step(error: BaseException) -> str:
    chain = _chain(error)
    if any(isinstance(each, OSError) and each.errno in NO_ROOM for each in chain):
        return "Make room on the disk, or set HF_HOME to a folder on another, then run the same command again."
    if any(isinstance(each, OSError) and each.errno in NOT_WRITABLE for each in chain):
        return "Set HF_HOME, or HF_HUB_CACHE, to a folder that can be written to, then run the same command again."
    codes = [each.response.status_code for each in chain if isinstance(each, HfHubHTTPError)]
    return next((NEXT_STEPS[code] for code in codes if code in NEXT_STEPS), TRY_AGAIN)


def public_files(found: dict[str, Path], private: dict[str, str]) -> Files:
    """Files as they may be sent: text without private words, everything else as it is.

    Raises:
        UserError: a text cannot be read, or holds a token.
    """
    files: Files = {}
    for name, path in found.items():
        try:
            text = path.read_text(encoding="utf-8") if path.suffix in TEXT else None
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is torn ({error}). Restore it; nothing was sent.") from error
        files[name] = path if text is None else public_text(text, private).encode()
    check_no_token(files)
    return files


def model_files(folder: Path) -> dict[str, Path]:
    """Weights, configs and model code of a folder that `save_pretrained` wrote, or of a checkpoint."""
    patterns = ("*config.json", "model*.safetensors", "model.safetensors.index.json", "*.py")
    return {path.name: path for pattern in patterns for path in sorted(folder.glob(pattern))}


def public_text(text: str, private: dict[str, str]) -> str:
    """Text with other words for private paths, wherever they stand as paths."""
    for word, public in private.items():
        text = re.sub(rf"(?<![\w.>-]){re.escape(word)}(?![\w-])", public, text)
    return text


def check_no_token(files: Files) -> None:
    """Raises UserError where a token of the Hub is in a file: in a note, say, or a command."""
    own = get_token()
    for name, content in files.items():
        if isinstance(content, bytes) and (TOKEN.search(content) or (own and own.encode() in content)):
            raise UserError(f"{name} holds a token of the Hub. Take it out of the run's files; nothing was sent.")
