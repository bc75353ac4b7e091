"""The loopback Hub's HTTP: the log of requests, planned faults, and answers and refusals as the Hub words them."""

import json
import re
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.storage import HubError

if TYPE_CHECKING:
    from tests.hub.server import HubServer


@dataclass
class Request:
    """What arrived: `path` with its query, unquoted, and `body` as far as it was read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at_cdn: bool

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Fault:
    """A planned fault; `reached` is set when a request has met it."""

    match: str
    status: int | None
    up: int | None
    down: int | None
    hang: float
    times: float
    reached: threading.Event = field(default_factory=threading.Event)


def cut(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side was faster
        connection.shutdown(socket.SHUT_RDWR)


class CutWriter:
    """Lets `left` bytes of an answer pass, then hangs and raises."""

    def __init__(self, target: Any, left: int, hang: Callable[[], object]) -> None:
        self.target, self.left, self.hang = target, left, hang

    def write(self, data: bytes) -> None:
        self.target.write(data[: self.left])
        self.left -= len(data)
        if self.left <= 0:
            self.hang()
            raise ConnectionAbortedError

    def flush(self) -> None:
        self.target.flush()


class Handler(BaseHTTPRequestHandler):
    """What both listeners have in common: the log, faults, and errors as the Hub tells them."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: ClassVar["HubServer"]
    at_cdn: ClassVar[bool]

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        self.hub.connections.add(self.connection)
        with suppress(ConnectionError):  # a killed client, or `stop`
            super().handle()
        self.hub.connections.discard(self.connection)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.words = [unquote(word) for word in parts.path.strip("/").split("/")]
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        size = int(self.headers.get("Content-Length", 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_seen = Request(self.command, unquote(self.path), headers, b"", self.at_cdn)
        fault = self.hub.take_fault(f"{self.command} {self.request_seen.path}")
        stop_at = size if fault is None or fault.up is None else min(size, fault.up)
        self.body = self.request_seen.body = self.rfile.read(stop_at)
        self.hub.log.append(self.request_seen)
        if fault is not None:
            fault.reached.set()
            if fault.down is None:
                self.hub.released.wait(fault.hang)
        if len(self.body) < size:  # a fault, or a client that was killed
            self.close_connection = True
            cut(self.connection)
            return
        plain = self.wfile
        if fault is not None and fault.down is not None:
            self.wfile = CutWriter(plain, fault.down, lambda: self.hub.released.wait(fault.hang))
        self.respond(fault.status if fault else None)
        self.wfile = plain

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def respond(self, status: int | None) -> None:
        try:
            if status is not None:
                raise HubError(status, "", f"planned fault {status}")
            self.route()
        except HubError as error:
            self.refuse(error)
        except ConnectionError:
            self.close_connection = True
            cut(self.connection)
        except Exception:  # a defect of this server: tests must see it
            self.hub.errors.append(traceback.format_exc())
            self.refuse(HubError(500, "", "a defect of tests/hub_server.py"))

    def route(self) -> None:
        raise NotImplementedError

    def refuse(self, error: HubError, **headers: str) -> None:
        headers |= {"X_Error_Message": error.message, "X_Request_Id": f"request-{len(self.hub.log)}"}
        headers |= {"X_Error_Code": error.code} if error.code else {}
        self.answer({"error": error.message}, error.status, **headers)

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        if not isinstance(body, bytes):
            headers["Content_Type"] = "application/json"
            body = json.dumps(body).encode()
        self.send_response(status)
        for key, value in ({"Content_Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_file(self, data: bytes, **headers: str) -> None:
        """The whole file, or the range of it that was asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not found:
            return self.answer(data, **headers)
        first, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
        place = f"bytes {first}-{last}/{len(data)}"
        return self.answer(data[first : last + 1], 206, Content_Range=place, **headers)
