"""Which requests the page answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sr_env.cli.demo_guard import Guard, check_hosts
from sr_env.utils.checks import UsageError


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"access-control-allow-origin", b"*")]})
        await send({"type": "http.response.body", "body": b"the page"})
    else:
        await send({"type": "websocket.accept"})


def answer(guard: Guard, *headers: tuple[str, str], kind: str = "http") -> tuple[Any, dict[bytes, bytes], bytes]:
    """Status (or the kind of the first message), headers and body."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers]}
    asyncio.run(guard(scope, None, send))
    return sent[0].get("status", sent[0]["type"]), dict(sent[0].get("headers", ())), sent[-1].get("body", b"")


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "[::1]"])
def test_its_own_hosts_are_answered(host: str) -> None:
    status, headers, body = answer(Guard(app), ("host", host), ("origin", f"http://{host.lower()}"))
    assert (status, body) == (200, b"the page")
    assert headers[b"content-security-policy"].startswith(b"default-src 'self'; ")
    assert headers[b"referrer-policy"] == b"no-referrer"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost@evil.example", "", "\xe9", "::1"]
)
def test_foreign_hosts_are_refused(host: str) -> None:
    """What a DNS of an attacker's lets mean this machine."""
    status, headers, body = answer(Guard(app), ("host", host))
    assert status == 403
    assert b"access-control-allow-origin" not in headers
    assert b"--hosts" in body


def test_one_host_is_asked_for() -> None:
    assert answer(Guard(app))[0] == 403
    assert answer(Guard(app), ("host", "localhost"), ("Host", "evil.example"))[0] == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost:3000", "http://localhost", "localhost:7860x"]
)
def test_foreign_pages_are_refused(origin: str) -> None:
    """Another server of this machine is another page, too."""
    assert answer(Guard(app), ("host", "localhost:7860"), ("origin", origin))[0] == 403
    assert answer(Guard(app), ("host", "localhost:7860"), ("origin", origin), kind="websocket")[0] == "websocket.close"


def test_a_proxy_may_be_named() -> None:
    """It may pass its own name on or this server's, and speak https."""
    guard = Guard(app, ("Photos.example",))
    assert answer(guard, ("host", "photos.example"), ("origin", "https://photos.example"))[0] == 200
    assert answer(guard, ("host", "127.0.0.1:7860"), ("origin", "https://photos.example:8443"))[0] == 200
    assert answer(guard, ("host", "photos.example"), kind="websocket")[0] == "websocket.accept"
    assert answer(guard, ("host", "127.0.0.1:7860"), ("origin", "https://other.example"))[0] == 403
    assert answer(guard, ("host", "other.example"))[0] == 403


def test_hosts_are_bare_names() -> None:
    check_hosts(["photos.example", "[::1]", "192.168.0.7"])
    for host in ("http://a.example", "a.example:80", "*", ""):
        with pytest.raises(UsageError, match="give names without scheme and port"):
            check_hosts([host])
