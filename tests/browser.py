"""The app in a real browser, for tests: a process of its own, and pages that are watched.

Everything runs offline on this computer: every name but the loopback address fails to resolve.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.contract.launch import PROJECT
from engine.contract.run_dir import RunDir
from engine.contract.status import TERMINAL, derive_status

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
LOSS = "document.querySelector('[data-plot=loss]')"
ATTACK = "<img src=x onerror=window.__xss=1> ${window.__xss=2} {{7*7}} `x`"


@dataclass
class App:
    """The app as a process of its own, on a port that it keeps when it is started again."""

    runs: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    network: tuple[str, ...] = ("--offline",)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "app.py", "--no-browser", *self.network),
                *("--port", str(self.port), "--runs", str(self.runs)),
            ],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("Open "):
                self.port = int(line.rstrip("/\n").rpartition(":")[2])
                return
        pytest.fail(f"the app ended with {self.process.wait()} before it served anything")

    def end(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@dataclass
class Watched:
    """A page and everything in it that should not have happened."""

    page: Page
    origin: str
    problems: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()

    def listen(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", lambda request: self._check_origin(request.url))
        self.page.on(
            "console",
            lambda message: self.problems.append(message.text) if message.type == "error" else None,
        )

    def _check_origin(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:")):
            self.problems.append(f"foreign request: {url}")

    def assert_clean(self) -> None:
        left = [text for text in self.problems if not any(word in text for word in self.allowed)]
        assert not left


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = "no Chromium found: the page is not tested in a real browser"
        if os.environ.get("QFT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright  # all tests read this file

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield browser
        browser.close()


@cache
def _own_app(config: pytest.Config) -> App:
    """One process for all tests of a session: to start it takes longer than most of them."""
    folder = Path(tempfile.mkdtemp(prefix="qft-browser-"))
    app = App(folder / "runs")
    app.start()

    def close() -> None:
        app.end(signal.SIGINT)
        shutil.rmtree(folder)

    config.add_cleanup(close)
    return app


@pytest.fixture
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    """The app with no run and no data: what a test leaves is taken away after it."""
    app = _own_app(request.config)
    yield app
    assert app.process is not None
    if app.process.poll() is not None:
        app.start()
    for folder in app.runs.glob("*/spec.json"):
        _end_engine(RunDir(folder.parent))
    # What begins with a dot is the app's own.
    for left in (*app.runs.glob("[!.]*"), *app.runs.parent.glob("[!.]*")):
        if left.is_file():
            left.unlink()
        elif left != app.runs:
            shutil.rmtree(left)


def _end_engine(run: RunDir) -> None:
    if derive_status(run) not in TERMINAL:
        run.request_stop(discard=True)
        wait_for(lambda: derive_status(run) in TERMINAL, seconds=60)


@pytest.fixture
def open_page(browser: Browser, app: App) -> Iterator[Callable[..., Watched]]:
    contexts: list[BrowserContext] = []

    def open_page(width: int = 1280, theme: str = "light", shows: str = ".q-methods") -> Watched:
        context = browser.new_context(viewport={"width": width, "height": 860})
        contexts.append(context)
        context.set_default_timeout(60_000)
        watched = Watched(context.new_page(), app.url)
        watched.listen()
        watched.page.goto(f"{app.url}?__theme={theme}")
        watched.page.wait_for_selector(shows)
        return watched

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def tuned_run(app: App) -> RunDir:
    """In the app, a run whose result answers unlike its base."""
    from tests.tuned_copy import tuned_copy  # torch takes a while to import

    return tuned_copy(app.runs)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_compare(open_page: Callable[..., Watched], width: int = 1280) -> Watched:
    watched = open_page(width)
    open_tab(watched.page, "Compare")
    watched.page.wait_for_selector("#cmp-right option:checked", state="attached")
    return watched
