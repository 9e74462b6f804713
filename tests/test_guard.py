"""The guard on a real server: raw sockets against uvicorn with a small Gradio page behind it."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qft_gui.guard import SECURITY_HEADERS, UPLOAD_CAP_BYTES, Guard, Message, Scope

# Building a Gradio page leaves event loops open, and with them their sockets.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

SMALL_BODY_CAP_BYTES, SMALL_UPLOAD_CAP_BYTES = 64 * 1024, 1024**2
DEADLINE_S = 60.0
PREDICT, UPLOAD, JOIN = (f"/gradio_api/{name}" for name in ("run/predict", "upload", "queue/join"))
JSON, MULTIPART = (
    f"Content-Type: {kind}" for kind in ("application/json", "multipart/form-data; boundary=limit")
)
FILE_START = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
FILE_END = b"\r\n--limit--\r\n"
ECHO = json.dumps({"data": ["x"], "fn_index": 0, "session_hash": "tests"}).encode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Server:
    """A running server, the folder of its files, and what its function was called with."""

    def __init__(self, port: int, files: Path) -> None:
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.files = files
        self.calls: list[str] = []

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)

    def exchange(self, request: bytes) -> Answer:
        with self.connect() as connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read())

    def request(self, method: str, path: str, *headers: str, body: bytes = b"") -> Answer:
        """Send one request with the page's own host, and read the whole answer."""
        length = [f"Content-Length: {len(body)}"] if body else []
        lines = [line.format(host=self.host) for line in headers]
        return self.exchange(
            head(f"{method} {path} HTTP/1.1", f"Host: {self.host}", *length, *lines) + body
        )

    def traces(self) -> tuple[list[str], list[Path]]:
        """What requests have left behind: calls and files."""
        return list(self.calls), [path for path in self.files.rglob("*") if path.is_file()]


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gradio_page(calls: list[str]) -> Any:
    import fastapi
    import gradio

    def echo(value: str) -> str:
        calls.append(value)
        return f"said {value}"

    def count() -> Iterator[str]:
        for number in range(4):
            yield str(number)
            time.sleep(0.3)

    with gradio.Blocks() as page:
        box = gradio.Textbox()
        box.submit(echo, box, box, queue=False)
        gradio.Button().click(count, None, box)
    application = fastapi.FastAPI(docs_url=None, redoc_url=None)
    return gradio.mount_gradio_app(application, page, path="/", run_history=False, ssr_mode=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    served = Server(listener.getsockname()[1], tmp_path_factory.mktemp("gradio"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(served.files))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        guarded = Guard(
            gradio_page(served.calls),
            port=served.port,
            extra_hosts=["Workshop.local"],
            upload_cap_bytes=SMALL_UPLOAD_CAP_BYTES,
            body_cap_bytes=SMALL_BODY_CAP_BYTES,
        )
        asyncio.set_event_loop(None)  # Gradio's: to be closed here, and not in another test
        gc.collect()
        config = uvicorn.Config(
            guarded, proxy_headers=False, log_level="error", timeout_graceful_shutdown=1
        )
        uvicorn_server = uvicorn.Server(config)
        thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listener]})
        thread.start()
        until(lambda: uvicorn_server.started)
        yield served
        uvicorn_server.should_exit = True
        thread.join()


OWN_HOSTS = "127.0.0.1:{} localhost:{} [::1]:{} LOCALHOST:{} workshop.local:{} workshop.local"
FOREIGN_HOSTS = """evil.example:{} evil.example 0.0.0.0:{} [::]:{} localhost.evil:{} localhost.:{}
127.0.0.1.evil:{} evil@localhost:{} localhost:1 localhost 2130706433:{} 127.1:{}"""


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        *(([host], 200) for host in OWN_HOSTS.split()),
        *(([host], 403) for host in FOREIGN_HOSTS.split()),
        ([""], 403),
        (["localhost:{}", "evil.example"], 400),
        ([], 400),
    ],
)
def test_only_the_listed_hosts_are_answered(server: Server, hosts: list[str], status: int) -> None:
    lines = [f"Host: {host.format(server.port)}" for host in hosts]
    assert server.exchange(head("GET / HTTP/1.1", *lines)).status == status


def test_an_old_request_without_a_host_is_refused(server: Server) -> None:
    assert server.exchange(head("GET / HTTP/1.0")).status == 403


@pytest.mark.parametrize("path", [PREDICT, UPLOAD, JOIN])
@pytest.mark.parametrize(
    "headers",
    [
        ["Origin: http://evil.example"],
        ["Origin: null"],
        ["Origin: http://localhost:3000"],
        ["Origin: https://{host}"],
        ["Origin: http://{host}.evil"],
        ["Origin: http://{host}", "Origin: http://evil.example"],
        ["Origin: http://{host}", "Origin: http://{host}"],
        ["Sec-Fetch-Site: cross-site"],
        ["Origin: http://{host}", "Sec-Fetch-Site: same-site"],
    ],
)
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ([MULTIPART], FILE_START + b"evil" + FILE_END),
        (["Content-Type: text/plain"], ECHO),
        (["Content-Type: application/x-www-form-urlencoded"], b"fn_index=0&data=x"),
        ([JSON], ECHO),
        ([], ECHO),
    ],
)
def test_another_page_can_run_nothing(
    server: Server, path: str, headers: list[str], kind: list[str], body: bytes
) -> None:
    before = server.traces()
    answer = server.request("POST", path, *headers, *kind, body=body)
    assert answer.status == 403
    assert answer.body.count(b"\n") == 1
    assert server.traces() == before


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Origin: http://{host}"],
        ["Origin: http://{host}", "Sec-Fetch-Site: same-origin"],
        ["Sec-Fetch-Site: none"],
    ],
)
def test_the_page_itself_runs_its_functions(server: Server, headers: list[str]) -> None:
    answer = server.request("POST", PREDICT, JSON, *headers, body=ECHO)
    assert answer.status == 200
    assert json.loads(answer.body)["data"] == ["said x"]


def test_an_upload_arrives_and_can_be_read_back(server: Server) -> None:
    answer = server.request("POST", UPLOAD, MULTIPART, body=FILE_START + b"hello" + FILE_END)
    assert answer.status == 200
    (path,) = json.loads(answer.body)
    assert Path(path).read_bytes() == b"hello"
    assert server.request("GET", f"/gradio_api/file={path}").body == b"hello"


def test_events_arrive_while_the_function_still_runs(server: Server) -> None:
    count = json.dumps({"data": [], "fn_index": 1, "session_hash": "stream"}).encode()
    assert server.request("POST", JOIN, JSON, body=count).status == 200
    path, arrivals = "/gradio_api/queue/data?session_hash=stream", []
    with server.connect() as connection:
        connection.sendall(head(f"GET {path} HTTP/1.1", f"Host: {server.host}"))
        response = HTTPResponse(connection)
        response.begin()
        while b"close_stream" not in (line := response.readline()):
            assert line, "the stream ended early"
            if b"process_generating" in line:
                arrivals.append(time.monotonic())
    assert len(arrivals) >= 4
    assert arrivals[-1] - arrivals[0] > 0.6


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: https",
        "Forwarded: host=evil.example;proto=https",
        "X-Gradio-Server: http://evil.example",
    ],
)
def test_forwarded_headers_do_not_move_the_page(server: Server, header: str) -> None:
    answer = server.request("GET", "/", header)
    assert answer.status == 200
    assert b"evil.example" not in answer.body
    assert f"https://{server.host}".encode() not in answer.body


@pytest.mark.parametrize("path", ["/", "/nothing", "/theme.css", "/favicon.ico"])
@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:1", "null"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_every_answer_is_for_our_page_only(
    server: Server, method: str, origin: str, path: str
) -> None:
    preflight = "Access-Control-Request-Method: POST"
    headers = server.request(method, path, f"Origin: {origin}", preflight).headers
    assert not [name for name in headers if name.startswith("access-control-")]
    assert {name.decode(): value.decode() for name, value in SECURITY_HEADERS.items()}.items() <= (
        headers.items()
    )


UNLISTED = """GET /config|GET /config/|GET /docs|GET /openapi.json|GET /monitoring|POST /login
GET /gradio_api/info|GET /gradio_api/openapi.json|GET /gradio_api/startup-events
GET /gradio_api/proxy=https://evil.example|POST /gradio_api/vibe-code|POST /gradio_api/run/echo
POST /gradio_api/call/echo|POST /gradio_api/api/predict|POST /gradio_api/mcp/
GET /assets/../gradio_api/info|GET /assets/%2e%2e/gradio_api/info|GET /static/..%5c..%5cetc
GET //gradio_api/info|GET http://evil.example/|GET /gradio_api/file=http://evil.example/?secret
GET /gradio_api/file=HTTPS://evil.example/|GET /gradio_api/file=file:///etc/passwd
GET /gradio_api/file=%5c%5cevil.example%5cshare|GET /gradio_api/file=../../etc/passwd"""


@pytest.mark.parametrize("request_line", UNLISTED.replace("\n", "|").split("|"))
def test_an_unlisted_path_does_not_exist(server: Server, request_line: str) -> None:
    answer = server.request(*request_line.split())
    assert (answer.status, answer.body) == (404, b"There is nothing at this address.\n")


def test_a_system_file_is_not_served(server: Server) -> None:
    assert server.request("GET", "/gradio_api/file=/etc/passwd").status == 403


@pytest.mark.parametrize("path", [PREDICT, UPLOAD, JOIN, "/"])
def test_a_body_declared_over_the_cap_is_not_read(server: Server, path: str) -> None:
    answer = server.request("POST", path, f"Content-Length: {300 * 1024**2}")
    assert answer.status == 413
    assert b"too large" in answer.body


@pytest.mark.parametrize(
    ("path", "kind", "start"),
    [
        (PREDICT, JSON, b'{"data": ["'),
        (JOIN, JSON, b'{"data": ["'),
        ("/gradio_api/component_server/", MULTIPART, FILE_START),
        (UPLOAD, MULTIPART, FILE_START),
    ],
)
def test_a_body_of_unknown_length_is_counted(
    server: Server, path: str, kind: str, start: bytes
) -> None:
    before = server.traces()
    cap_bytes = SMALL_UPLOAD_CAP_BYTES if path == UPLOAD else SMALL_BODY_CAP_BYTES
    lines = [f"Host: {server.host}", kind, "Transfer-Encoding: chunked"]
    body = chunk(start) + chunk(b"x" * cap_bytes)
    answer = server.exchange(head(f"POST {path} HTTP/1.1", *lines) + body)
    assert answer.status == 413
    assert "content-security-policy" in answer.headers
    until(lambda: server.traces() == before)


def test_what_follows_a_declared_length_is_no_body(server: Server) -> None:
    before = server.traces()
    lines = [f"Host: {server.host}", JSON, "Content-Length: 10"]
    answer = server.exchange(head(f"POST {PREDICT} HTTP/1.1", *lines) + ECHO + b" " * 1000)
    assert answer.status in {400, 422}
    assert server.traces() == before


def test_a_broken_off_upload_leaves_nothing(server: Server) -> None:
    before = server.traces()
    lines = [f"Host: {server.host}", MULTIPART, "Content-Length: 300000"]
    with server.connect() as connection:
        connection.sendall(head(f"POST {UPLOAD} HTTP/1.1", *lines) + FILE_START + b"x" * 200_000)
        until(lambda: server.traces() != before)
    until(lambda: server.traces() == before)


def ask_guard(scope: Scope) -> tuple[bool, list[Message]]:
    """Whether the guard lets a scope through, and what it sends itself."""
    passed: list[Scope] = []
    sent: list[Message] = []

    async def behind(scope: Scope, _receive: Any, _send: Any) -> None:
        passed.append(scope)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(Guard(behind, port=7860)(scope, receive, send))
    return bool(passed), sent


def scope_of(kind: str, path: str, **headers: str) -> Scope:
    pairs = {"host": "localhost:7860", **headers}.items()
    return {
        "type": kind,
        "scheme": {"websocket": "ws"}.get(kind, kind),
        "method": "POST",
        "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in pairs],
    }


@pytest.mark.parametrize(
    ("headers", "codes"),
    [
        ({}, []),
        ({"origin": "http://localhost:7860"}, []),
        ({"origin": "http://evil.example"}, [4403]),
        ({"origin": "ws://localhost:7860"}, [4403]),
        ({"sec_fetch_site": "cross-site"}, [4403]),
    ],
)
def test_a_websocket_of_another_page_is_closed(headers: dict[str, str], codes: list[int]) -> None:
    passed, sent = ask_guard(scope_of("websocket", "/", **headers))
    assert passed == (not codes)
    assert [message["code"] for message in sent] == codes


def test_unknown_protocols_are_dropped_and_lifespan_passes() -> None:
    assert ask_guard({"type": "webtransport"}) == (False, [])
    assert ask_guard({"type": "lifespan"}) == (True, [])


@pytest.mark.parametrize(
    ("path", "length_bytes", "statuses"),
    [
        (UPLOAD, 256 * 1024**2, []),
        (UPLOAD, UPLOAD_CAP_BYTES + 1, [413]),
        (PREDICT, 1024**2, []),
        (PREDICT, 64 * 1024**2, [413]),
    ],
)
def test_the_default_caps(path: str, length_bytes: int, statuses: list[int]) -> None:
    passed, sent = ask_guard(scope_of("http", path, content_length=str(length_bytes)))
    assert passed == (not statuses)
    assert [message["status"] for message in sent[:1]] == statuses
