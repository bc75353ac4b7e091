"""The routes of the loopback Hub and of its storage of large files: those that the real clients ask for."""

import base64
import json
import re
import time
from collections.abc import Callable
from urllib.parse import parse_qs

from tests.hub.card import check_card, read_card
from tests.hub.http import Handler
from tests.hub.storage import Commit, File, HubError, Repo, is_lfs, sha256

WRITE_TOKEN = "hf_testsOwnWriteTokenXXXXXXXXXXXXXXXX"
READ_TOKEN = "hf_testsOwnReadTokenXXXXXXXXXXXXXXXXX"
STRANGER_TOKEN = "hf_testsStrangerTokenXXXXXXXXXXXXXXXX"
TOKENS = {WRITE_TOKEN: ("tester", "write"), READ_TOKEN: ("tester", "read"), STRANGER_TOKEN: ("stranger", "write")}


class CdnHandler(Handler):
    """Large files by sha256: PUT and GET /lfs/{sha256}/{size}. As S3 it refuses a request that brings a token."""

    at_cdn = True

    def route(self) -> None:
        if self.request_seen.token:
            raise HubError(400, "", "Only one auth mechanism allowed")
        _, oid, size = self.words
        if self.command != "PUT":
            return self.answer_file(self.hub.storage.large.read(oid, int(size)))
        if sha256(self.body) != oid:
            raise HubError(400, "", "the content does not match its sha256")
        self.hub.storage.large.lfs[oid] = self.body
        return self.answer(b"")


class HubHandler(Handler):
    """The routes of the Hub itself."""

    at_cdn = False

    def route(self) -> None:
        self.kind = "models"
        match (self.command, *self.words):
            case ("POST", "api", "validate-yaml"):
                card = json.loads(self.body)
                errors, warnings = check_card(card["content"])
                self.answer({"errors": errors, "warnings": warnings}, 400 if errors else 200)
            case ("POST", "api", "repos", "create"):
                self.create()
            case ("DELETE", "api", "repos", "delete"):
                repo = self.find(*self.asked_repo(), write=True)
                del self.hub.storage.repos[repo.kind, repo.id]
                self.answer({})
            case (_, "api", "whoami-v2"):
                user, role = self.user()
                if user is None:
                    raise HubError(401, "", "Invalid username or password.")
                access = {"accessToken": {"role": role, "displayName": "tests"}}
                self.answer({"type": "user", "name": user, "orgs": [], "auth": access})
            case (_, "api", ("models" | "datasets") as kind, owner, name, *rest):
                self.route_repo(kind, f"{owner}/{name}", *rest or [""])
            case (_, "datasets", owner, name, *rest):
                self.route_files("datasets", f"{owner}/{name}", rest)
            case (_, owner, name, *rest):
                self.route_files("models", f"{owner}/{name}", rest)
            case _:
                raise HubError(404, "", "no such page")

    def user(self) -> tuple[str | None, str]:
        """Who asks and what the token may do: "write", "read" or, without one, "none"."""
        token = self.request_seen.token
        if token is None:
            return None, "none"
        if token not in TOKENS:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return TOKENS[token]

    def find(self, kind: str, repo_id: str, write: bool = False) -> Repo:
        """The repository, if whoever asks may see it, and change it."""
        user, role = self.user()
        repo = self.hub.storage.repos.get((kind, repo_id))
        if repo is None or (repo.private and user != repo.owner):
            # The client makes of 401 what it makes of this code, but only for https addresses
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user is None:
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        # Whoever may write at all may propose changes to an open repository
        proposes = "create_pr" in self.query or any(re.match("refs/pr/|discussions", word) for word in self.words)
        if write and (role != "write" or (user != repo.owner and not proposes)):
            raise HubError(403, "", "Forbidden: you need a token with write access to this repository.")
        return repo

    def asked_repo(self) -> tuple[str, str]:
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user()[0]
        return asked.get("type", "model") + "s", f"{owner}/{asked['name']}"

    def create(self) -> None:
        kind, repo_id = self.asked_repo()
        user, role = self.user()
        owner, _, name = repo_id.partition("/")
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        if role != "write" or owner != user:
            message = f"You don't have the rights to create a {kind[:-1]} under the namespace {owner!r}"
            raise HubError(403, "", message)
        if not re.fullmatch(r"[\w.-]{1,96}", name) or ".." in name or "--" in name or name.endswith(".git"):
            raise HubError(400, "", f"Invalid repository name {name!r}")
        exists = (kind, repo_id) in self.hub.storage.repos
        if not exists:
            asked = json.loads(self.body)  # clients before 2.0 say `private`
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.storage.repos[kind, repo_id] = Repo(kind, repo_id, private)
        error = {"error": "You already created this repo"} if exists else {}
        url = self.url(self.hub.storage.repos[kind, repo_id])
        self.answer(error | {"url": url, "name": repo_id}, 409 if exists else 200)

    def url(self, repo: Repo) -> str:
        return f"{self.hub.endpoint}/{'datasets/' if repo.kind == 'datasets' else ''}{repo.id}"

    # --- the API of one repository

    def route_repo(self, kind: str, repo_id: str, action: str, *rest: str) -> None:
        command = "GET" if self.command == "HEAD" else self.command
        answer = ACTIONS.get((command, action))
        if answer is None:
            raise HubError(404, "", "no such page")
        reads = command == "GET" and action != "xet-write-token"
        repo = self.find(kind, repo_id, write=not reads and action != "paths-info")
        answer(self, repo, *rest or ["main"])

    def send_info(self, repo: Repo, revision: str) -> None:
        commit = repo.at(revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        if "blobs" in self.query:
            for sibling in siblings:
                entry = self.hub.storage.entry(sibling["rfilename"], commit.files[sibling["rfilename"]])
                lfs = {"lfs": entry["lfs"] | {"sha256": entry["lfs"]["oid"]}} if "lfs" in entry else {}
                sibling |= {"size": entry["size"], "blobId": entry["oid"]} | lfs
        readme = commit.files.get("README.md", File(0))
        card = read_card(self.hub.storage.read(readme).decode())
        card = card if isinstance(card, dict) else {}
        found = {"id": repo.id, "author": repo.owner, "sha": commit.oid, "siblings": siblings, "cardData": card}
        found |= {"private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False}
        found |= {"tags": list(card.get("tags") or []), "downloads": 0, "likes": 0, "lastModified": commit.date}
        self.answer(found | {key: card[key] for key in ("pipeline_tag", "library_name") if key in card})

    def send_tree(self, repo: Repo, revision: str, *folder: str) -> None:
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        self.answer(self.hub.storage.listing(repo.at(revision).files, "/".join(folder).strip("/"), recursive))

    def send_paths_info(self, repo: Repo, revision: str) -> None:
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(self.body) if is_json else parse_qs(self.body.decode())
        entries = self.hub.storage.listing(repo.at(revision).files, "", recursive=True)
        self.answer([entry for entry in entries if entry["path"] in asked["paths"]])

    def send_upload_modes(self, repo: Repo, revision: str) -> None:
        """With the `oid` of what is there already, which lets the client leave out files that are unchanged."""
        there = repo.at(revision).files
        answers = []
        for asked in json.loads(self.body)["files"]:
            large = is_lfs(asked["path"], base64.b64decode(asked["sample"]), asked["size"])
            answer = {"path": asked["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if (file := there.get(asked["path"])) is not None:
                answer["oid"] = file.lfs_oid or file.oid
            answers.append(answer)
        self.answer({"files": answers})

    def make_commit(self, repo: Repo, revision: str) -> None:
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        for line in lines:
            if line["key"] == "file":
                line["value"]["content"] = base64.b64decode(line["value"]["content"])
                if line["value"]["path"] == "README.md" and (
                    errors := check_card(line["value"]["content"].decode())[0]
                ):
                    raise HubError(400, "", errors[0]["message"])
        operations = [(line["key"], line["value"]) for line in lines]
        create_pr = "create_pr" in self.query
        branch, commit = self.hub.storage.commit(repo, revision, operations, create_pr)
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{self.url(repo)}/commit/{commit.oid}"}
        number = branch.rpartition("/")[2]
        self.answer(answer | ({"pullRequestUrl": f"{self.url(repo)}/discussions/{number}"} if create_pr else {}))

    def send_xet_token(self, repo: Repo, revision: str) -> None:
        if "create_pr" not in self.query:  # then the client asks for the revision "None"
            repo.at(revision)
        address, expires = f"local://{self.hub.storage.large.cas}", int(time.time()) + 3600
        headers = {"X_Xet_Cas_Url": address, "X_Xet_Access_Token": "xet", "X_Xet_Token_Expiration": str(expires)}
        self.answer({"casUrl": address, "accessToken": "xet", "exp": expires}, **headers)

    def send_refs(self, repo: Repo, _: str) -> None:
        def tell(names: dict[str, Commit], prefix: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": prefix + name, "targetCommit": commit.oid} for name, commit in names.items()]

        pulls = {name: commit for name, commit in repo.branches.items() if name.startswith("refs/pr/")}
        branches = {name: commit for name, commit in repo.branches.items() if name not in pulls}
        found = {"branches": tell(branches, "refs/heads/"), "tags": tell(repo.tags, "refs/tags/"), "converts": []}
        self.answer(found | ({"pullRequests": tell(pulls, "")} if "include_prs" in self.query else {}))

    def send_commits(self, repo: Repo, revision: str) -> None:
        self.answer([
            {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date,
             "authors": [{"user": repo.owner}]}
            for commit in repo.history(revision)
        ])  # fmt: skip

    def make_branch(self, repo: Repo, name: str) -> None:
        start = json.loads(self.body or "{}").get("startingPoint", "main")
        self.add_name(repo.branches, name, repo.at(start))

    def make_tag(self, repo: Repo, revision: str) -> None:
        self.add_name(repo.tags, json.loads(self.body)["tag"], repo.at(revision))

    def add_name(self, names: dict[str, Commit], name: str, commit: Commit) -> None:
        if name in names:
            raise HubError(409, "", f"Reference already exists: {name}")
        names[name] = commit
        self.answer({})

    def delete_name(self, repo: Repo, name: str) -> None:
        names = repo.tags if "tag" in self.words else repo.branches
        if names.pop(name, None) is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {name}")
        self.answer({})

    def open_pull_request(self, repo: Repo, _: str) -> None:
        """Upload of a folder over Xet opens one first and then commits to its branch."""
        self.answer({"num": int(repo.open_pull_request(repo.head).rpartition("/")[2])})

    def send_pull_request(self, repo: Repo, number: str) -> None:
        date = repo.at(f"refs/pr/{number}").date
        found = {"num": int(number), "title": "", "status": "draft", "createdAt": date, "isPullRequest": True}
        found |= {"repo": {"name": repo.id, "type": repo.kind[:-1]}, "events": [], "filesWithConflicts": []}
        self.answer(found | {"changes": {"base": "refs/heads/main"}, "diff": ""})

    # --- files

    def route_files(self, kind: str, repo_id: str, rest: list[str]) -> None:
        match (self.command, *rest):
            case ("GET" | "HEAD", "resolve", revision, *path):
                self.send_file(self.find(kind, repo_id), revision, "/".join(path))
            case ("POST", "info", "lfs", "objects", "batch"):
                self.find(kind, repo_id.removesuffix(".git"), write=True)
                self.plan_uploads()
            case ("POST", "info", "lfs", "verify"):
                if json.loads(self.body)["oid"] not in self.hub.storage.large.lfs:
                    raise HubError(404, "", "the object was not uploaded")
                self.answer({})
            case _:
                raise HubError(404, "", "no such page")

    def plan_uploads(self) -> None:
        asked = json.loads(self.body)
        verify = {"href": self.request_seen.path.partition("/objects/")[0] + "/verify"}
        verify["href"] = self.hub.endpoint + verify["href"]
        objects = []
        for entry in asked["objects"]:
            href = f"{self.hub.cdn}/lfs/{entry['oid']}/{entry['size']}"
            actions = {"actions": {"upload": {"href": href}, "verify": verify}}
            is_there = entry["oid"] in self.hub.storage.large.lfs
            objects.append({"oid": entry["oid"], "size": entry["size"]} | ({} if is_there else actions))
        self.answer({"transfer": "basic", "objects": objects})

    def send_file(self, repo: Repo, revision: str, path: str) -> None:
        if repo.gated and self.user()[0] != repo.owner:
            raise HubError(403 if self.user()[0] else 401, "GatedRepo", f"Access to {repo.id} is restricted")
        commit = repo.at(revision)
        headers = {"X_Repo_Commit": commit.oid}
        if path not in commit.files:  # with the commit: the client keeps in mind that it has no such file
            return self.refuse(HubError(404, "EntryNotFound", "Entry not found"), **headers)
        file = commit.files[path]
        if file.lfs_oid is None:
            return self.answer_file(file.data, ETag=f'"{file.oid}"', **headers)
        headers |= {"X_Linked_Etag": f'"{file.lfs_oid}"', "X_Linked_Size": str(file.size)}
        if xet_hash := self.hub.storage.large.xet_hash(file.lfs_oid):
            token = f"{self.hub.endpoint}/api/{repo.kind}/{repo.id}/xet-read-token/{commit.oid}"
            headers |= {"X_Xet_Hash": xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
        return self.answer(b"", 302, Location=f"{self.hub.cdn}/lfs/{file.lfs_oid}/{file.size}", **headers)


ACTIONS: dict[tuple[str, str], Callable[..., None]] = {
    ("GET", ""): HubHandler.send_info,
    ("GET", "revision"): HubHandler.send_info,
    ("GET", "tree"): HubHandler.send_tree,
    ("POST", "paths-info"): HubHandler.send_paths_info,
    ("POST", "preupload"): HubHandler.send_upload_modes,
    ("POST", "commit"): HubHandler.make_commit,
    ("GET", "xet-read-token"): HubHandler.send_xet_token,
    ("GET", "xet-write-token"): HubHandler.send_xet_token,
    ("GET", "refs"): HubHandler.send_refs,
    ("GET", "commits"): HubHandler.send_commits,
    ("POST", "discussions"): HubHandler.open_pull_request,
    ("GET", "discussions"): HubHandler.send_pull_request,
    ("POST", "branch"): HubHandler.make_branch,
    ("DELETE", "branch"): HubHandler.delete_name,
    ("POST", "tag"): HubHandler.make_tag,
    ("DELETE", "tag"): HubHandler.delete_name,
}
