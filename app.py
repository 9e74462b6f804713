"""Start the window: `python app.py`. Trainings outlive it."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path

from engine.contract.errors import ExitCode
from engine.contract.run_dir import default_runs

DEFAULT_PORT = 7860
PORTS_TRIED = 50
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def main(arguments: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    options = _parser().parse_args(arguments)
    if options.host not in LOOPBACK and not options.allow_host:
        return _refuse(
            f"--host {options.host} would show this page to other computers. "
            "Name the host that may be used in their address bar: --allow-host NAME."
        )
    port = free_port(options.host, options.port)
    if port is None:
        return _refuse(f"Port {options.port} is taken. Leave --port out to get a free one.")
    if options.host not in LOOPBACK:
        print("Everyone who reaches this computer by that name can use the page.", file=sys.stderr)
    if options.offline:
        os.environ.update(OFFLINE)
    print("QFT Workbench is starting…", flush=True)
    serve(options, port)
    return ExitCode.DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The window of QFT Workbench.")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on")
    parser.add_argument("--port", type=int, help=f"default: {DEFAULT_PORT}, or the next free one")
    parser.add_argument("--runs", type=Path, default=default_runs(), help="folder of all runs")
    parser.add_argument(
        "--allow-host", action="append", default=[], help="host name that browsers may use"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--offline", action="store_true", help="no network, not even for models")
    return parser


def free_port(host: str, wish: int | None) -> int | None:
    """The wished port if it is free, else None; without a wish, the first free one, else 0."""
    if wish is not None:
        return wish if wish == 0 or _is_free(host, wish) else None
    ports = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)
    return next((port for port in ports if _is_free(host, port)), 0)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def serve(options: argparse.Namespace, port: int) -> None:
    """Serve until Ctrl-C. Port 0 means any."""
    from qft_gui.server import Address, make_application, prepare_gradio

    prepare_gradio(options.runs / ".scratch")
    address = Address(options.host, port or _any_port(options.host), tuple(options.allow_host))
    application, room = make_application(options.runs, address)

    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            application,
            host=address.host,
            port=address.port,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    threading.Thread(
        target=_announce, args=(server, address.url, options.no_browser), daemon=True
    ).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    finally:
        room.close()
    print(
        "\nThe window is closed. Trainings that were started go on; "
        "`python -m engine list` shows them, `python -m engine stop RUN` stops one."
    )


def _announce(server: object, url: str, quiet: bool) -> None:
    while not getattr(server, "started", False):
        time.sleep(0.05)
    print(f"Open {url}", flush=True)
    if not quiet:
        webbrowser.open(url)


def _any_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return ExitCode.BAD_REQUEST


if __name__ == "__main__":
    sys.exit(main())
