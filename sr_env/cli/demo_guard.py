"""Whose requests the page answers, and what a browser may load for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sr_env.utils.checks import UsageError

#: What the browser may load: this server's files, and what the page makes itself. Gradio's pages use inline scripts.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "frame-ancestors 'none'"
)
#: What this machine is called by itself.
_OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def check_hosts(hosts: Iterable[str]) -> None:
    """Raise :class:`UsageError` where one of ``hosts`` is no bare name."""
    for host in hosts:
        if not host or set(host) & set("/*@ ") or _host_of(host) != host.lower():
            raise UsageError(f"--hosts {host}: give names without scheme and port, such as photos.example")


def _host_of(netloc: str) -> str:
    """The host of ``host:port``, in lower case; an IPv6 address keeps its brackets."""
    name, _, port = netloc.lower().rpartition(":")
    return name if name and port.isdigit() else netloc.lower()


class Guard:
    """Answers requests for this page alone, and says what the browser may load, so that it asks nobody else.

    A page elsewhere can make a browser ask this server under a name of its own (DNS rebinding, which ``Host`` tells),
    or send it forms and uploads (which ``Origin`` tells): both are refused with 403, preflights too.

    Args:
        app: The ASGI application.
        hosts: Names that are answered to beside this machine's own, in any case, without port; pages served under them
            may ask, whatever name a proxy passes on.
    """

    def __init__(self, app: Any, hosts: Sequence[str] = ()) -> None:
        self.app = app
        self.named = {host.lower() for host in hosts}
        self.hosts = {*_OWN_HOSTS, *self.named}

    def _why_not(self, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
        values: dict[bytes, list[str]] = {}
        for name, value in headers:
            values.setdefault(name.lower(), []).append(value.decode("latin-1"))
        asked, origins = values.get(b"host", []), values.get(b"origin", [])
        if len(asked) != 1 or _host_of(asked[0]) not in self.hosts:
            return f"this page is not served as {', '.join(asked) or 'nothing'}: name the host with --hosts"
        for origin in origins:
            place = origin.lower().partition("://")[2]
            if place != asked[0].lower() and _host_of(place) not in self.named:
                return f"pages of {origin} may not ask this one"
        return None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request as ASGI, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
                message = {**message, "headers": [*headers, (b"referrer-policy", b"no-referrer")]}
            await send(message)

        reason = self._why_not(scope["headers"])
        if reason is None:
            await self.app(scope, receive, sending)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not from here"})
        else:
            plain = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
            await sending({"type": "http.response.start", "status": 403, "headers": plain})
            await sending({"type": "http.response.body", "body": reason.encode()})
