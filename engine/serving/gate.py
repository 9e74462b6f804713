"""Who may talk to the served model: the outermost layer, before anything is read.

On loopback a hostile page in a browser on the same computer could call: by a name of its own that
resolves here, or by a request that needs no permission. So only the names of this computer are
answered, and pages only with the token. Off loopback a token is needed always, and its length keeps
guesses out. Wrong ones cost no wait: behind a proxy all have one address, and would wait for one.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from engine.serving.wire import error_document

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this computer only.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "pc.lan")]
    [True, True, True, False, False]
    """
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class _Refusal:
    status: int
    sentence: str
    code: str


class Gate:
    """An ASGI application in front of another: every request passes here first, or not at all.

    Args:
        app: What answers the requests that pass.
        host: The address that is listened on.
        port: Part of every name that is answered on loopback.
        token: What a client has to show; None for none, on loopback only.
    """

    def __init__(self, app: Application, host: str, port: int, token: str | None) -> None:
        assert token or is_loopback(host), "off loopback a token is needed"
        self._app = app
        self._token = _digest(token.encode()) if token else None
        self._hosts: frozenset[str] | None = None
        if is_loopback(host):
            bare = _LOOPBACK_NAMES if port == 80 else ()
            named = f"[{host}]" if ":" in host else host.lower()
            names = {*_LOOPBACK_NAMES, named}
            self._hosts = frozenset([*bare, *(f"{name}:{port}" for name in names)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with one sentence."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(send, refusal)

    def _refusal(self, scope: Scope) -> _Refusal | None:
        hosts = _values(scope, b"host")
        if self._hosts is not None and (len(hosts) != 1 or hosts[0].lower() not in self._hosts):
            sentence = "This server does not answer to that host name."
            return _Refusal(403, sentence, "host_not_allowed")
        if self._token is not None:
            shown = _shown_token(scope)
            if shown is not None and hmac.compare_digest(_digest(shown), self._token):
                return None
            return _Refusal(401, "The token is missing or wrong.", "invalid_api_key")
        sites = _values(scope, b"sec-fetch-site")
        if _values(scope, b"origin") or set(sites) - {"none"}:
            sentence = "Pages may call this server only with a token."
            return _Refusal(403, sentence, "origin_not_allowed")
        return None


def _digest(token: bytes) -> bytes:
    """Of one length for all, so that comparing takes the same time whatever is shown."""
    return hashlib.sha256(token).digest()


def _shown_token(scope: Scope) -> bytes | None:
    shown = _values(scope, b"authorization")
    kind, _, value = (shown[0] if len(shown) == 1 else "").partition(" ")
    return value.strip().encode("utf-8", "surrogateescape") if kind.lower() == "bearer" else None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [
        value.decode("utf-8", "surrogateescape")
        for key, value in scope["headers"]
        if key.lower() == name
    ]


async def _refuse(send: Send, refusal: _Refusal) -> None:
    document = error_document(refusal.sentence, "invalid_request_error", refusal.code)
    body = json.dumps(document).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is left of a refused body is not read
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
