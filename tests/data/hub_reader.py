"""A data set repository on loopback, to read only: what `load_dataset` and `hf_hub_download` ask the Hub for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

REPO, GATED, COMMIT = "owner/data", "owner/gated", "0123456789" * 4


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves the files of `folder`, which has no folders within, as branch `main` of `REPO`."""

    protocol_version = "HTTP/1.1"
    folder: Path

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for key, value in ({"X-Repo-Commit": COMMIT, "Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), Content_Type="application/json")

    def fail(self, kind: str, code: int = 404) -> None:
        self.answer(json.dumps({"error": kind}).encode(), code, X_Error_Code=kind, Content_Type="application/json")

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if GATED in path:
            return self.fail("GatedRepo", 403)
        if not path.startswith((f"/api/datasets/{REPO}", f"/datasets/{REPO}/resolve/")):
            return self.fail("RepoNotFound")
        words = path.partition(REPO)[2].strip("/").split("/")
        if len(words) > 1 and words[1] not in ("main", COMMIT):
            return self.fail("RevisionNotFound")
        if words[0] == "resolve":
            return self.send_file(self.folder / "/".join(words[2:]))
        if words[0] == "tree":
            return self.answer_json(self.listing())
        names = [{"rfilename": entry["path"]} for entry in self.listing()]
        return self.answer_json({"id": REPO, "sha": COMMIT, "private": False, "siblings": names, "tags": []})

    do_HEAD = do_GET

    def do_POST(self) -> None:  # paths-info
        asked = unquote(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer_json([entry for entry in self.listing() if str(entry["path"]) in asked])

    def listing(self) -> list[dict[str, str | int]]:
        files = [(path.name, path.read_bytes()) for path in sorted(self.folder.iterdir())]
        return [{"type": "file", "path": name, "size": len(data), "oid": sha1(data)} for name, data in files]

    def send_file(self, path: Path) -> None:
        if not path.is_file():
            return self.fail("EntryNotFound")
        data = path.read_bytes()
        tag = f'"{sha1(data)}"'
        if "Range" not in self.headers:
            return self.answer(data, ETag=tag)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return self.answer(part, 206, ETag=tag, Content_Range=place)


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The address of a Hub that has this folder's files in `REPO`, and a `GATED` one."""
    handler = type("FolderHandler", (Handler,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
