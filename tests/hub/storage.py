"""What the loopback Hub keeps: repositories with commits, branches, tags and pull requests, and their files."""

import hashlib
import secrets
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LFS_SUFFIXES = {".arrow", ".bin", ".npz", ".onnx", ".parquet", ".pt", ".pth", ".safetensors"}
LFS_SIZE = 10 * 2**20  # larger files cannot be kept in git
FIRST_FILE = b"".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n".encode() for suffix in sorted(LFS_SUFFIXES))
Content = dict[str, "File"]
Operations = list[tuple[str, Any]]  # the key and the value of each line of a commit


class HubError(Exception):
    """A refusal: the HTTP status, the value of X-Error-Code, and what the Hub says."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def is_lfs(path: str, sample: bytes, size: int) -> bool:
    return size > 0 and (Path(path).suffix in LFS_SUFFIXES or size > LFS_SIZE or b"\0" in sample)


@dataclass(frozen=True)
class File:
    """One file of a commit: `data` in git, or only the sha256 `lfs_oid` of what lies in the large storage."""

    size: int
    data: bytes = b""
    lfs_oid: str | None = None

    @property
    def oid(self) -> str:
        """The git sha1: of the content, or of the pointer that git has in its place."""
        return git_sha1(self.data if self.lfs_oid is None else self.pointer)

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.lfs_oid}\nsize {self.size}\n".encode()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: "Commit | None"
    files: Content
    title: str
    message: str
    date: str


@dataclass
class Repo:
    """A repository of `kind` "models" or "datasets"; `branches` has the pull requests too, as refs/pr/N."""

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.advance("main", None, {".gitattributes": File(len(FIRST_FILE), FIRST_FILE)}, "initial commit")

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    @property
    def head(self) -> Commit:
        return self.branches["main"]

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits of a revision, last one first."""
        commit: Commit | None = self.at(revision)
        found = []
        while commit is not None:
            found.append(commit)
            commit = commit.parent
        return found

    def at(self, revision: str) -> Commit:
        """The commit that a branch, tag, pull request or commit name stands for."""
        for names in (self.branches, self.tags, self.commits):
            if revision in names:
                return names[revision]
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def advance(self, branch: str, parent: Commit | None, files: Content, title: str, message: str = "") -> Commit:
        """Makes a commit the head of a branch."""
        # A name never comes again: the clients' caches outlive the repositories of one test
        commit = Commit(secrets.token_hex(20), parent, files, title, message, now())
        self.commits[commit.oid] = self.branches[branch] = commit
        return commit

    def open_pull_request(self, parent: Commit) -> str:
        """The branch of a new pull request, which begins at `parent`."""
        branch = f"refs/pr/{1 + sum(name.startswith('refs/pr/') for name in self.branches)}"
        self.branches[branch] = parent
        return branch


class LargeFiles:
    """The content of large files by sha256, as LFS has sent it or as hf_xet has left it in its `local://` store."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="hub-xet-")
        self.cas = Path(self.folder.name)
        self.lfs: dict[str, bytes] = {}
        self.shards: dict[Path, dict[str, str]] = {}
        self.rebuilt: dict[str, bytes] = {}

    def __contains__(self, oid: str) -> bool:
        return oid in self.lfs or self.xet_hash(oid) is not None

    def xet_hash(self, oid: str) -> str | None:
        """The Xet hash of a file that was uploaded over Xet: a commit names it by sha256 alone."""
        for path in self.cas.glob("**/shards/*.mdb"):
            if path not in self.shards:
                self.shards[path] = dict(read_shard(path.read_bytes()))
        return next((hashes[oid] for hashes in self.shards.values() if oid in hashes), None)

    def read(self, oid: str, size: int) -> bytes:
        """The content, checked against its sha256."""
        if oid in self.lfs:
            return self.lfs[oid]
        if oid not in self.rebuilt:
            self.rebuilt[oid] = self.rebuild(str(self.xet_hash(oid)), size)
            assert sha256(self.rebuilt[oid]) == oid
        return self.rebuilt[oid]

    def rebuild(self, xet_hash: str, size: int) -> bytes:
        """The content of a Xet file, as a client of hf_xet gets it."""
        import hf_xet

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "content"
            with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{self.cas}") as group:
                group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(path))
            return path.read_bytes()


def read_shard(data: bytes) -> Iterator[tuple[str, str]]:
    """The (sha256, Xet hash) of the files that a shard of hf_xet tells of; both are four little-endian u64 each."""

    def name(place: int) -> str:
        return "".join(f"{word:016x}" for word in struct.unpack_from("<4Q", data, place))

    place = 48
    while data[place : place + 32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", data, place + 32)
        entries = count * (2 if flags >> 31 else 1)
        end = place + 48 * (1 + entries)
        if flags >> 30 & 1:
            yield name(end), name(place)
            end += 48
        place = end


class Storage:
    """All repositories of the Hub, and the changes that can be made to them."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large = LargeFiles()
        self.lock = threading.Lock()

    def forget(self) -> None:
        """Forgets all but the Xet store, which clients of this process have open."""
        self.repos.clear()
        self.large.lfs.clear()

    def read(self, file: File) -> bytes:
        return file.data if file.lfs_oid is None else self.large.read(file.lfs_oid, file.size)

    def entry(self, path: str, file: File) -> dict[str, Any]:
        """A file as the tree and paths-info routes tell of it."""
        found: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
        if file.lfs_oid is not None:
            found["lfs"] = {"oid": file.lfs_oid, "size": file.size, "pointerSize": len(file.pointer)}
            if xet_hash := self.large.xet_hash(file.lfs_oid):
                found["xetHash"] = xet_hash
        return found

    def listing(self, files: Content, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """The entries of a folder ("" is the root), folders too."""
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in files.items() if path.startswith(prefix)}
        if folder and not inside:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist")
        folders = {str(parent) for path in inside for parent in Path(path.removeprefix(prefix)).parents} - {"."}
        entries = [{"type": "directory", "path": prefix + path, "size": 0, "oid": git_sha1(b"")} for path in folders]
        entries += [self.entry(path, file) for path, file in inside.items()]
        entries = [entry for entry in entries if recursive or "/" not in entry["path"].removeprefix(prefix)]
        return sorted(entries, key=lambda entry: entry["path"])

    def commit(self, repo: Repo, revision: str, operations: Operations, create_pr: bool) -> tuple[str, Commit]:
        """Makes one commit of the operations, all or none; returns the branch and the commit."""
        header = next(value for key, value in operations if key == "header")
        with self.lock:
            if revision not in repo.branches:
                raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            parent, expected = repo.branches[revision], header.get("parentCommit")
            if create_pr and expected:
                parent = repo.at(expected)
            elif expected and not parent.oid.startswith(expected):
                raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(parent.files)
            for key, value in operations:
                self.change(files, key, value)
            branch = repo.open_pull_request(parent) if create_pr else revision
            return branch, repo.advance(branch, parent, files, header["summary"], header.get("description", ""))

    def change(self, files: Content, key: str, value: Any) -> None:
        """Applies one line of a commit to the files."""
        path = value.get("path", "")
        if key == "file":
            files[path] = File(len(value["content"]), value["content"])
        elif key == "lfsFile":
            if value["oid"] not in self.large:
                raise HubError(400, "", f"{path}: the large file {value['oid']} was not uploaded")
            files[path] = File(value["size"], lfs_oid=value["oid"])
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise HubError(404, "EntryNotFound", f"{path} does not exist")
        elif key == "deletedFolder":
            for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
                del files[name]
        elif key != "header":
            raise HubError(400, "", f"unknown operation {key}")
