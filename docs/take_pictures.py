"""Takes the pictures in docs/pictures/ from the real app: `python -m docs.take_pictures`.

Tunes the starter once, so that every page has something to show.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

PROJECT = Path(__file__).resolve().parent.parent
PICTURES = PROJECT / "docs" / "pictures"
WIDTHS = {1280: 900, 390: 844}
PAGES = ("Setup", "Run", "Compare", "X-ray", "Runs")
BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main(target: Path = PICTURES) -> None:
    """Every page at two widths, light and dark."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _app(Path(folder)) as address:
        engine = [sys.executable, "-m", "engine"]
        spec = PROJECT / "examples" / "pirate_qft.yaml"
        command = [*engine, "run", str(spec), "--runs", folder, "--name", "pirate-qft"]
        subprocess.run(command, cwd=PROJECT, check=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=BROWSER_OPTIONS
            )
            for width in WIDTHS:
                for theme in ("light", "dark"):
                    _photograph(browser, address, width, theme, target)
            browser.close()


def _photograph(browser: Browser, address: str, width: int, theme: str, target: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]})
    page.goto(f"{address}/?__theme={theme}")
    for name in PAGES:
        page.get_by_role("tab", name=name, exact=True).click()
        _settle(page, name)
        file = f"{name.lower().replace('-', '')}_{width}_{theme}.png"
        page.screenshot(path=target / file, full_page=True)
    page.close()


def _settle(page: Page, name: str) -> None:
    """Wait until a page has drawn what it shows."""
    if name == "Run":
        page.wait_for_selector(".js-plotly-plot .scatterlayer .trace", state="attached")
    if name == "Compare":
        box = page.get_by_placeholder("Ask something")
        box.fill("Who are you?")
        box.press("Enter")
        page.wait_for_function(
            "document.body.innerText.split('tokens/s').length === 3", timeout=60_000
        )
        page.wait_for_timeout(3000)
    if name == "X-ray":
        page.get_by_role("button", name="Take the X-ray").click()
        page.wait_for_selector("#xray-charts .js-plotly-plot", timeout=120_000)
    page.wait_for_timeout(1500)


@contextmanager
def _app(runs: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--port", str(port), "--runs", str(runs)]
    process = subprocess.Popen([sys.executable, "app.py", *options], cwd=PROJECT)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(address: str, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
