"""`serve`: a run's result or a model behind OpenAI's interface."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from engine.contract.errors import ExitCode, RequestError
from engine.target import Target, find_target

if TYPE_CHECKING:
    from engine.serving.gate import Application

TOKEN = "QFT_SERVE_TOKEN"
SHORTEST_TOKEN = 16  # letters; fewer can be found by trying
_TOKEN = re.compile(r"[!-~]{1,512}")  # what a header can carry
_PATIENCE_S = 2
_UNENCRYPTED = (
    "Warning: the traffic is not encrypted. Whoever is on the network between can read token, "
    "questions and answers."
)


def serve_command(options: Namespace) -> ExitCode:
    """Answer until Ctrl-C."""
    from engine.serving.gate import Gate, is_loopback

    token = _token(options, needed=not is_loopback(options.host))
    target = find_target(options.target, options.runs)
    with (
        _listening(options.host, options.port) as listener,
        answering(target, options.device) as app,
    ):
        port = int(listener.getsockname()[1])
        shown = f"[{options.host}]" if ":" in options.host else options.host
        listener.listen()  # before the address is told: whoever connects at once waits, unrefused
        print(f"{target.name} answers at http://{shown}:{port}/v1, Ctrl-C ends it.", flush=True)
        if options.fresh_token:
            print(f"Its token is {token}", flush=True)
        if not is_loopback(options.host):
            print(_UNENCRYPTED, file=sys.stderr, flush=True)
        _serve(Gate(app, options.host, port, token), listener)
    return ExitCode.DONE


def _token(options: Namespace, *, needed: bool) -> str | None:
    """What clients have to show: a fresh one, the one that is named, or none on loopback."""
    if options.fresh_token:
        if options.token is not None:
            raise RequestError("--fresh-token", "a token is named too.", "Leave one of them out.")
        return secrets.token_urlsafe(24)
    token = options.token if options.token is not None else os.environ.get(TOKEN) or None
    if token is None:
        if needed:
            raise RequestError(
                "--token",
                f"others can reach {options.host}, so a token is needed.",
                f"Add --fresh-token, which makes and prints one, or set {TOKEN}.",
            )
        return None
    if not _TOKEN.fullmatch(token):
        raise RequestError(
            "--token",
            "it is empty or has characters that no header has.",
            "Use letters and digits.",
        )
    if len(token) < SHORTEST_TOKEN:
        raise RequestError(
            "--token",
            f"it has {len(token)} letters, and fewer than {SHORTEST_TOKEN} can be guessed.",
            "Use a longer one, or --fresh-token, which makes and prints one.",
        )
    return token


def _listening(host: str, port: int) -> socket.socket:
    """A socket that is ours; port 0 takes any that is free."""
    if not 0 <= port <= 65535:
        raise RequestError("--port", f"{port} is no port.", "Use 0 to 65535.")
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            if sys.platform != "win32":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise RequestError(
            "--port", f"{host}:{port} cannot be listened on ({reason}).", "Use another."
        ) from error
    return listener


@contextmanager
def answering(target: Target, device: str, **options: Any) -> Iterator[Application]:
    """What answers; as long as it does, no other program of ours has its device.

    Args:
        target: Who.
        device: As `--device` names it.
        **options: Of `ChatModels`.

    Raises:
        RequestError: It cannot be loaded.
        DeviceBusyError: Another process has the device.
    """
    from engine.chat_models import ChatModels, Loading
    from engine.model import choose_torch_device
    from engine.serving.answerer import Answerer
    from engine.serving.app import make_app

    def tell(loading: Loading) -> None:
        print(f"Loading {loading.name}.", file=sys.stderr)

    models = ChatModels(tell, purpose="serving", **options)
    models.load({"b": target}, choose_torch_device(device))
    try:
        loaded = models.use("b")
        yield make_app(Answerer(loaded), target.name, loaded.max_position)
    finally:
        models.unload()


def _serve(app: Application, listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])
