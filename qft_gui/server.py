"""Serving the page on this computer: Gradio behind our guard, plotly.js and styles from disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qft_gui.chat_client import ChatClient
from qft_gui.chat_room import ChatRoom, chat_log
from qft_gui.fragments import STATIC
from qft_gui.guard import LOOPBACK_HOSTS, Guard
from qft_gui.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

GRADIO_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
}
MOUNTING: dict[str, Any] = {
    "css_paths": [STATIC / "style.css", STATIC / "compare.css"],
    "head_paths": STATIC / "head.html",
    "max_file_size": "256mb",
    "allowed_paths": [],
    "footer_links": [],
    "run_history": False,
    "show_error": False,
    "ssr_mode": False,
    "mcp_server": False,
    "enable_monitoring": False,
}
A_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Address:
    """Where the page is served.

    Attributes:
        host: The interface to bind.
        port: A free port.
        names: More host names that the guard lets in.
    """

    host: str
    port: int
    names: tuple[str, ...] = ()

    @property
    def is_for_others(self) -> bool:
        """Whether other computers can reach the page: by its interface, or by a name of a proxy."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host not in LOOPBACK_HOSTS or bool(self.names)

    @property
    def url(self) -> str:
        """The page's address, by a name that the guard lets in."""
        host = next(iter(self.names), self.host)
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"


def prepare_gradio(scratch: Path) -> None:
    """Take Gradio's settings out of the environment and put ours in; before it is imported."""
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ.update(GRADIO_SETTINGS, GRADIO_TEMP_DIR=str(scratch))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def plotly_script() -> Path:
    """plotly.js as the plotly package ships it; found without importing the package."""
    package = find_spec("plotly")
    assert package is not None, "plotly is required"
    assert package.origin is not None, "plotly is a package on disk"
    return Path(package.origin).parent / "package_data" / "plotly.min.js"


def make_application(
    runs: Path, address: Address, client: ChatClient | None = None
) -> tuple[Guard, ChatRoom]:
    """The guarded ASGI application, and the chat room that must be closed with it.

    Gradio is imported here, which takes seconds.

    Args:
        runs: Folder of all runs.
        address: Where it will be served.
        client: Who talks to the chat worker; by default a new one.
    """
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.gzip import GZipMiddleware

    from qft_gui.shell import build_blocks
    from qft_gui.theme import make_theme

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    application.add_middleware(GZipMiddleware, minimum_size=1000)
    plotly_path = _serve_plotly(application)
    room = ChatRoom(client or ChatClient(chat_log(runs)), runs.resolve())
    is_for_others = address.is_for_others
    page = build_blocks(Service(runs), room, plotly_path, is_for_others=is_for_others)
    gr.mount_gradio_app(application, page, path="/", theme=make_theme(), **MOUNTING)
    return Guard(application, port=address.port, extra_hosts=address.names), room


def _serve_plotly(application: FastAPI) -> str:
    """Offer plotly.js from this computer; returns its path, which changes with its version."""
    from fastapi.responses import FileResponse

    path = f"/vendor/plotly-{version('plotly')}.min.js"

    @application.get(path)
    def plotly() -> FileResponse:
        return FileResponse(
            plotly_script(), media_type="text/javascript", headers={"Cache-Control": A_YEAR}
        )

    return path
