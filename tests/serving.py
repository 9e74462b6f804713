"""A served model for tests: in a thread of theirs, or as the command serves it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import uvicorn

from engine.contract.launch import PROJECT, engine_environment
from engine.model import LoadedModel
from engine.serving.answerer import Answerer
from engine.serving.app import make_app
from engine.serving.gate import Gate
from tests.workshop import wait_until

HELLO: list[Any] = [{"role": "user", "content": "Hello! Who are you?"}]
WAITING = 2
TOKEN = "a-token-of-some-length"


@contextmanager
def served(
    loaded: LoadedModel,
    token: str | None = None,
    answerer: Answerer | None = None,
    name: str = "starter",
) -> Iterator[int]:
    """The port of a server in a thread of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
        answerer = answerer or Answerer(loaded, WAITING)
        app = make_app(answerer, name, loaded.max_position)
        config = uvicorn.Config(
            Gate(app, "127.0.0.1", port, token),  # pyright: ignore[reportArgumentType]
            log_level="warning",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield port
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def client_of(port: int, token: str = "none") -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key=token, max_retries=0, timeout=60
    )


def asked(client: openai.OpenAI, **settings: Any) -> Any:
    settings = {"temperature": 0, "max_tokens": 24, "messages": HELLO, **settings}
    return client.chat.completions.create(model="starter", **settings)


def raw(
    port: int, method: str = "POST", path: str = "/v1/chat/completions", **changes: Any
) -> tuple[int, dict[str, Any]]:
    body = changes.pop("body", json.dumps({"messages": HELLO, "max_tokens": 1}).encode())
    headers = {"Host": f"127.0.0.1:{port}", "Content_Type": "application/json", **changes}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@contextmanager
def command_serving(
    *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a process of its own, and its port."""
    command = [sys.executable, "-m", "engine", "serve", "starter", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        [*command, *arguments],
        cwd=PROJECT,
        env={**engine_environment(), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout
            line = process.stdout.readline().decode()
            assert line.startswith("starter answers at http://")
            yield process, int(line.split("/v1")[0].rpartition(":")[2])
        finally:
            process.kill()
