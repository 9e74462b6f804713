"""The outermost layer of the server: it refuses what the page itself never sends.

Gradio answers any name that resolves to this machine and lets pages of other local ports call it,
so a hostile page in the same browser could run every function of the app. Nothing behind the guard
has to know about that.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.formparsers import MultiPartException

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

API = "/gradio_api/"
UPLOAD_PATH = API + "upload"
PATHS = frozenset(
    {
        "/",
        "/favicon.ico",
        "/manifest.json",
        "/theme.css",
        UPLOAD_PATH,
        API + "upload_progress",
        API + "app_id",  # asked after a lost connection: a new one makes the page reload itself
        API + "cancel",
        API + "component_server",
        API + "component_server/",
        API + "queue/data",
        API + "queue/join",
        API + "reset",
        API + "run/predict",  # every event that skips the queue, whatever its name
    }
)
FOLDERS = ("/assets/", "/static/", "/vendor/", API + "heartbeat/")
FILE_PATH = API + "file="
# Gradio fetches a URL that is given as a file, and Windows a network share: ways out of this
# machine, past the content policy. One letter and a colon is a Windows drive.
ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|[/\\]{2}")

UPLOAD_CAP_BYTES = 257 * 1024**2  # a file of 256 MiB and its multipart framing
BODY_CAP_BYTES = 4 * 1024**2  # two long chat histories with room to spare

CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Gradio compiles gr.HTML templates and its line plots from strings.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "frame-src 'none'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Mapping[bytes, bytes] = {
    b"content-security-policy": CONTENT_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
    """An ASGI application in front of another: every request passes here first, or not at all.

    uvicorn must run with `proxy_headers=False`: it would act on forwarded headers before this does.
    """

    def __init__(
        self,
        app: Application,
        *,
        port: int,
        extra_hosts: Sequence[str] = (),
        upload_cap_bytes: int = UPLOAD_CAP_BYTES,
        body_cap_bytes: int = BODY_CAP_BYTES,
    ) -> None:
        """Put the guard in front of `app`.

        Args:
            app: What answers the requests that pass.
            port: The port the server listens on, part of every allowed host name.
            extra_hosts: More names this server is reached by, allowed with `port` and without.
            upload_cap_bytes: The largest body of the upload route.
            body_cap_bytes: The largest body of every other route.
        """
        self._app = app
        self._hosts = _allowed_hosts(port, extra_hosts)
        self._upload_cap_bytes = upload_cap_bytes
        self._body_cap_bytes = body_cap_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection: pass it on, or refuse it with one sentence."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal:
            await send({"type": "websocket.close", "code": 4403, "reason": refusal[1]})
        else:
            await self._app(_without_forwarded(scope), receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope)
        if refusal:
            await _refuse(send, *refusal)
            return
        exchange = _Exchange(scope["path"] == UPLOAD_PATH, self._cap_bytes(scope), receive, send)
        # The client that this error is about has its answer, or is gone.
        with suppress(BodyRefusedError):
            await self._app(
                _without_forwarded(scope), exchange.receive_counted, exchange.send_hardened
            )

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and sentence to refuse with; None lets the request pass."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, "This server does not answer to that host name."
        origins = _values(scope, b"origin")
        if len(origins) > 1:
            return 403, "A request has one origin at most."
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            own = f"{_page_scheme(scope)}://{hosts[0]}".lower()
            sites = _values(scope, b"sec-fetch-site")
            if set(origins) - {own} or set(sites) - {"same-origin", "none"}:
                return 403, "Another page may not call this server."
        if not _is_of_page(scope["path"]):
            return 404, "There is nothing at this address."
        declared = _values(scope, b"content-length")
        if any(value.isdecimal() and int(value) > self._cap_bytes(scope) for value in declared):
            return 413, _too_large(self._cap_bytes(scope))
        return None

    def _cap_bytes(self, scope: Scope) -> int:
        is_upload = scope["path"] == UPLOAD_PATH
        return self._upload_cap_bytes if is_upload else self._body_cap_bytes


class BodyRefusedError(MultiPartException):
    """Raised into the application while it reads a body that will never be whole.

    Gradio deletes the partial files of an upload on this type of error, and on no other.
    """


class _Exchange:
    """One HTTP request that passed: its body is counted, its response gets our headers."""

    def __init__(self, is_upload: bool, cap_bytes: int, receive: Receive, send: Send) -> None:
        self._is_upload = is_upload
        self._cap_bytes = cap_bytes
        self._receive = receive
        self._send = send
        self._received_bytes = 0
        self._body_whole = False
        self._response_started = False
        self._refused = False

    async def receive_counted(self) -> Message:
        """The next part of the body, as long as all of it stays under the cap."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            if self._is_upload and not self._body_whole:
                raise BodyRefusedError("The upload was broken off.")
            return message
        self._received_bytes += len(message.get("body", b""))
        self._body_whole = not message.get("more_body", False)
        if self._received_bytes > self._cap_bytes:
            if not self._response_started:
                self._refused = True
                await _refuse(self._send, 413, _too_large(self._cap_bytes))
            raise BodyRefusedError(_too_large(self._cap_bytes))
        return message

    async def send_hardened(self, message: Message) -> None:
        """Pass one part of the response on at once, so that event streams stay streams."""
        if self._refused:
            return  # the answer was given; what the application says about it is of no use
        if message["type"] == "http.response.start":
            self._response_started = True
            message = {**message, "headers": _hardened(message.get("headers", ()))}
        await self._send(message)


def _allowed_hosts(port: int, extra_hosts: Sequence[str]) -> frozenset[str]:
    extra = [host.lower() for host in extra_hosts]
    # Browsers leave out the port that belongs to the scheme.
    bare = [*extra, *(LOOPBACK_HOSTS if port == 80 else ())]
    return frozenset([*bare, *(f"{host}:{port}" for host in (*LOOPBACK_HOSTS, *extra))])


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _page_scheme(scope: Scope) -> str:
    """The scheme of a page of ours: a websocket is opened by an http page."""
    return "https" if scope["scheme"] in {"https", "wss"} else "http"


def _is_of_page(path: str) -> bool:
    if ".." in re.split(r"[/\\]", path):
        return False
    if path.startswith(FILE_PATH):
        return not ELSEWHERE.match(path, len(FILE_PATH))
    return path in PATHS or path.startswith(FOLDERS)


def _without_forwarded(scope: Scope) -> Scope:
    """Gradio builds the addresses in its page from these headers, so nobody may set them."""
    kept = [
        (name, value)
        for name, value in scope["headers"]
        if not name.lower().startswith(b"x-forwarded")
        and name.lower() not in {b"forwarded", b"x-gradio-server"}
    ]
    return {**scope, "headers": kept}


def _hardened(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    kept = [
        (name, value)
        for name, value in headers
        if not name.lower().startswith(b"access-control-") and name.lower() not in SECURITY_HEADERS
    ]
    return [*kept, *SECURITY_HEADERS.items()]


def _too_large(cap_bytes: int) -> str:
    return f"The request is too large: at most {cap_bytes / 1024**2:g} MiB here."


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = f"{sentence}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is left of a refused body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": _hardened(headers)})
    await send({"type": "http.response.body", "body": body})
