"""cityscapesscripts' own downloader against a site on loopback that behaves like the official one.

Its addresses are fixed, so the site is reached as in an office: through a proxy, with a certificate of its own.
"""

import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from hfseg import UserError
from hfseg.data.cityscapes import cityscapes_source
from hfseg.data.cityscapes_download import PACKAGES, download
from tests.builders import assert_same_as_cityscapes, pack_cityscapes
from tests.extras import needs

needs("cityscapes")

LOGIN = {"username": "me", "password": "secret"}


class Site(http.server.BaseHTTPRequestHandler):
    """The proxy and, inside its tunnel, www.cityscapes-dataset.com: login, list, checksums, files with ranges."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_CONNECT(self) -> None:
        assert self.path == "www.cityscapes-dataset.com:443"
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        right = all(form.get(key) == [value] for key, value in LOGIN.items())
        self.answer(302 if right else 200, b"", {"Set-Cookie": "session=1"} if right else {})

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/login":
            self.answer(200, b"<form>")
        elif self.headers["Cookie"] != "session=1":
            self.answer(302, b"", {"Location": "/login"})
        elif url.path == "/downloads/":
            sizes = {"name": "", "size": "1MB", "thirdparty": "0"}
            listed = [sizes | {"name": name, "packageID": str(i)} for i, name in enumerate(PACKAGES)]
            self.answer(200, json.dumps(listed).encode())
        else:
            name = list(PACKAGES)[int(parse_qs(url.query)["packageID"][0])]
            content = (self.server.folder / name).read_bytes()
            if url.path == "/md5-sum/":
                self.answer(200, f"{self.server.sums[name]}  {name}\n".encode())
            else:
                self.send_file(name, content)

    def send_file(self, name: str, content: bytes) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.server.asked.append((name, start))
        if start >= len(content):
            self.answer(416, b"")
            return
        body, self.server.drop = content[start:], self.server.drop - 1
        sent = body[: len(body) // 2] if self.server.drop == 0 else body
        self.answer(206 if start else 200, sent, {"Content-Length": str(len(body))})
        self.close_connection = len(sent) < len(body)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """What the site has and what it was asked for; the `drop`-th file breaks off in the middle."""

    def __init__(self, folder: Path, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Site)
        self.folder, self.drop, self.asked = folder, 0, list[tuple[str, int]]()
        self.sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in PACKAGES}
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certificate, certificate.with_suffix(".key"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on this machine, and the site needs a certificate")
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    name = "www.cityscapes-dataset.com"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the downloader keeps the login that its user let it store."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    path = tmp_path / "share" / "cityscapesscripts" / "credentials.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(LOGIN))
    return path


@pytest.fixture
def site(
    cityscapes: Path, tmp_path: Path, certificate: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    with Server(pack_cityscapes(cityscapes, tmp_path / "served"), certificate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.delenv("https_proxy", raising=False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        yield server
        server.shutdown()


IMAGES, MASKS = PACKAGES


def test_download_and_only_once(site: Server, cityscapes: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert_same_as_cityscapes(cityscapes_source(None, cache).load(cache), cityscapes)
    assert site.asked == [(IMAGES, 0), (MASKS, 0)]
    cityscapes_source(None, cache)
    shutil.rmtree(cache / "cityscapes" / "official")  # as if killed between the download and the unpacking
    assert_same_as_cityscapes(cityscapes_source(None, cache).load(cache), cityscapes)
    assert len(site.asked) == 2


def test_a_broken_download_goes_on_where_it_stopped(site: Server, tmp_path: Path) -> None:
    site.drop = 1
    with pytest.raises(UserError, match=rf"Could not download {IMAGES}.*Run this again"):
        download(tmp_path / "zips")
    assert not list((tmp_path / "zips").glob("*.zip"))
    arrived = (tmp_path / "zips" / "partial" / IMAGES).stat().st_size
    assert arrived > 100
    for path in download(tmp_path / "zips"):
        assert path.read_bytes() == (site.folder / path.name).read_bytes()
    assert site.asked == [(IMAGES, 0), (IMAGES, arrived - 1), (MASKS, 0)]


def test_killed_before_the_whole_file_got_its_name(site: Server, tmp_path: Path) -> None:
    (tmp_path / "zips" / "partial").mkdir(parents=True)
    shutil.copy(site.folder / IMAGES, tmp_path / "zips" / "partial")
    (tmp_path / "zips" / "partial" / MASKS).touch()
    for path in download(tmp_path / "zips"):
        assert path.read_bytes() == (site.folder / path.name).read_bytes()


def test_a_wrong_checksum_is_refused_and_can_be_repeated(site: Server, tmp_path: Path) -> None:
    right, site.sums[MASKS] = site.sums[MASKS], "0" * 32
    with pytest.raises(UserError, match=rf"Could not download {MASKS}.*MD5"):
        download(tmp_path / "zips")
    assert os.listdir(tmp_path / "zips" / "partial") == []
    site.sums[MASKS] = right
    assert (download(tmp_path / "zips")[1]).is_file()


def test_a_refused_login(site: Server, tmp_path: Path, credentials: Path) -> None:
    credentials.write_text(json.dumps(LOGIN | {"password": "wrong"}))
    with pytest.raises(UserError, match=r"Bad credentials.*csDownload -l"):
        download(tmp_path / "zips")


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_damaged_login(site: Server, tmp_path: Path, credentials: Path, content: str) -> None:
    credentials.write_text(content)
    with pytest.raises(UserError, match="csDownload -l"):
        download(tmp_path / "zips")


def test_no_site(tmp_path: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"Could not download.*Run this again"):
        download(tmp_path / "zips")


def test_without_cityscapesscripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cityscapesscripts", None)  # Python's own way to say: not installed
    with pytest.raises(UserError, match=r"pip install 'hfseg\[cityscapes\]'"):
        download(tmp_path / "zips")


def test_without_a_login_the_error_says_what_to_do(tmp_path: Path, credentials: Path) -> None:
    credentials.unlink()
    with pytest.raises(UserError) as error:
        cityscapes_source(None, tmp_path / "cache")
    for said in (str(credentials), *PACKAGES, "11 GB", "https://www.cityscapes-dataset.com/downloads/", "account"):
        assert said in str(error.value)
    assert "data.root" in str(error.value)
    assert "csDownload" in str(error.value)
