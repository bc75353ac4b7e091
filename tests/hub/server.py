"""A Hub on loopback for the tests, spoken to by the real `huggingface_hub`, over LFS and over Xet.

Two listeners: the Hub itself and, as another origin, the storage of large files ("CDN"), which must never see a token.
It knows private and gated repositories, tokens, branches, tags and pull requests, and logs all that it was sent.
`HubServer.fail` plans faults. It must not import huggingface_hub, which reads its address when imported.
"""

import base64
import re
import socket
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.hub.http import Fault, Request, cut
from tests.hub.routes import TOKENS, CdnHandler, HubHandler
from tests.hub.storage import File, Repo, Storage


class HubServer:
    """The two listeners and what they share. `endpoint` stays the same over `stop` and `start`."""

    write_token, read_token, stranger_token = TOKENS  # the stranger may write, but not here

    def __init__(self) -> None:
        self.ports = [0, 0]
        self.listeners: list[ThreadingHTTPServer] = []
        self.connections: set[socket.socket] = set()
        self.storage = Storage()
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[str] = []
        self.released = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def start(self) -> "HubServer":
        for index, base in enumerate((HubHandler, CdnHandler)):
            handler = type(base.__name__, (base,), {"hub": self})
            listener = ThreadingHTTPServer(("127.0.0.1", self.ports[index]), handler)
            listener.daemon_threads, listener.block_on_close = True, False
            self.ports[index] = listener.server_port
            threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
            self.listeners.append(listener)
        return self

    def stop(self) -> None:
        """From now on connections are refused; those that clients keep open are cut."""
        for listener in self.listeners:
            listener.shutdown()
            listener.server_close()
        self.listeners.clear()
        for connection in list(self.connections):
            cut(connection)

    def reset(self) -> None:
        """Forgets repositories, log and faults, and starts again if stopped."""
        self.released.set()  # whoever hangs
        self.released = threading.Event()
        self.storage.forget()
        for record in (self.log, self.faults, self.errors):
            record.clear()
        if not self.listeners:
            self.start()

    def fail(
        self,
        match: str,
        status: int | None = None,
        *,
        up: int | None = None,
        down: int | None = None,
        hang: float = 0.0,
        times: float = 1,
    ) -> Fault:
        """Plans a fault for the next `times` requests whose "METHOD path?query" the pattern `match` is found in.

        Args:
            match: A regular expression, such as "PUT /lfs", "POST .*/commit/" or "GET /lfs".
            status: Answers with it, and does nothing else.
            up: Reads so many bytes of the body, then hangs, then closes the connection.
            down: Does what is asked, sends so many bytes of the answer (head and body), then hangs, then closes.
                With 0 the answer is lost and the deed done.
            hang: Waits so many seconds; with neither `up` nor `down` before the answer, which is then as usual.
        """
        self.faults.append(Fault(match, status, up, down, hang, times))
        return self.faults[-1]

    def take_fault(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, line):
                fault.times -= 1
                return fault
        return None

    def publish(self, repo_id: str, folder: Path) -> None:
        """Makes a public model of a folder's files, as if somebody had pushed them."""
        repo = self.storage.repos["models", repo_id] = Repo("models", repo_id)
        paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        files = {name: File(path.stat().st_size, path.read_bytes()) for name, path in paths.items()}
        repo.advance("main", repo.head, {**repo.head.files, **files}, "as it is")

    def repo(self, repo_id: str, kind: str = "models") -> Repo:
        """Raises KeyError where there is none."""
        return self.storage.repos[kind, repo_id]

    def files(self, repo_id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """The content of every file of a revision, but the .gitattributes that a repository begins with."""
        files = self.repo(repo_id, kind).at(revision).files
        return {path: self.storage.read(file) for path, file in files.items() if path != ".gitattributes"}

    def requests(self, match: str) -> list[Request]:
        """Those of the log whose "METHOD path?query" the pattern is found in."""
        return [request for request in self.log if re.search(match, f"{request.method} {request.path}")]

    def sent(self) -> bytes:
        """All that clients have sent, for tests to look for secrets in, without the Authorization headers.

        Holds paths, headers and bodies, what was sent in base64 also decoded, and the content of what came over Xet.
        """
        parts = []
        for request in self.log:
            headers = {name: value for name, value in request.headers.items() if name != "authorization"}
            parts += [f"{request.method} {request.path} {headers}".encode(), request.body]
            quoted = re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]*)"', request.body)
            parts += [base64.b64decode(text) for text in quoted if len(text) % 4 == 0]
        commits = [commit for repo in self.storage.repos.values() for commit in repo.commits.values()]
        files = {file for commit in commits for file in commit.files.values() if file.lfs_oid}
        return b"\n".join(parts + [self.storage.read(file) for file in files])
