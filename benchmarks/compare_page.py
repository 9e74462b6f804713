"""The Compare page while an answer is written, in a browser: `python -m benchmarks.compare_page`.

Frames are timed with an empty conversation and with one of 10,000 tokens in each column, and how
long after a click on Stop text still came, while that long one is on the page. The page,
its server, the chat client and its pipes are the app's; only the model is a program that writes
words at a steady pace, so that no model takes the processor from the browser.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine.contract.durable import write_json
from engine.contract.events import EventWriter
from engine.contract.run_dir import create_run
from engine.contract.spec_file import validate_spec
from qft_gui.chat_client import ChatClient
from qft_gui.server import Address, make_application, prepare_gradio

HISTORY_TOKENS = 10_000
TOKENS_A_TURN = 1_000
SETTLE_MS = 2000
MEASURED_TOKENS = 200  # at 20 a second and side
NUM_STOPS = 12
TALKER = """
import json, os, sys, threading, time
stopped, requests, ready = set(), [], threading.Semaphore(0)
def send(number, event, **fields):
    print(json.dumps({"id": number, "event": event, **fields}), flush=True)
def read():
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "stop":
            stopped.add(request["target"])
        else:
            requests.append(request)
            ready.release()
    os._exit(0)
def answer(number, side, count, pause):
    for at in range(0, count, 2):
        if number in stopped:
            break
        send(number, "text", side=side, text=f"word{at} word{at + 1} ")
        time.sleep(pause)
    send(number, "done", side=side, num_tokens=count, seconds=1.0, first_token_s=0.1,
         tokens_per_s=20.0, stopped="length", prompt_tokens=1, dropped_turns=0)
threading.Thread(target=read, daemon=True).start()
while True:
    ready.acquire()
    request = requests.pop(0)
    number = request["id"]
    if request["op"] == "load":
        send(number, "loaded", different=True, largest_difference=1.0, seconds=0.1)
    else:
        pause = 0.0 if request.get("system") else 0.1
        for side in request["messages"]:
            answer(number, side, request["max_new_tokens"], pause)
    send(number, "end")
"""
# Times between frames, and when turns were changed, while an answer is written.
WATCH = """
() => {
  const frames = [], changes = [];
  let last = performance.now(), run = true;
  const tick = (now) => { frames.push(now - last); last = now; if (run) requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
  const observer = new MutationObserver(() => changes.push(performance.now()));
  observer.observe(document.querySelector('[data-part=log]'), { childList: true, characterData: true, subtree: true, attributes: true });
  window.endWatch = () => { run = false; observer.disconnect(); return { frames, changes }; };
}
"""  # noqa: E501
# From a click on Stop to the last change of a reply, and to where one can ask again.
STOP = """
() => new Promise((resolve) => {
  const button = document.querySelector('[data-do=stop]');
  let last = 0;
  const observer = new MutationObserver(() => { last = performance.now() - clicked; });
  document.querySelectorAll('.q-cmp-talk .q-cmp-text').forEach((one) =>
    observer.observe(one, { childList: true, characterData: true, subtree: true }));
  const clicked = performance.now();
  button.click();
  const wait = () => {
    if (!button.hidden) return setTimeout(wait, 5);
    const idle = performance.now() - clicked;
    setTimeout(() => { observer.disconnect(); resolve({ text: last, idle }); }, 1000);
  };
  wait();
})
"""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The app with a run to talk to and a worker that only writes words."""
    import uvicorn

    runs = folder / "runs"
    document = {"model": {"source": "starter"}, "data": {"source": "pirate"}}
    run = create_run(runs, validate_spec({**document, "method": {"kind": "full"}}), "talker")
    EventWriter(run.events_path, 1).close()
    run.export.mkdir()
    (run.export / "config.json").write_text("{}")
    worker = folder / "talker.py"
    worker.write_text(TALKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    prepare_gradio(folder / "scratch")
    client = ChatClient(folder / "chat.log", command=[sys.executable, "-S", str(worker)])
    application, room = make_application(runs, Address("127.0.0.1", port), client)
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/"
    room.close()
    server.should_exit = True
    thread.join(10)


def open_compare(page: Any, url: str) -> None:
    """Go to the Compare page; an app that was just opened may go to a page of its own first."""
    page.goto(url)
    settled = 0
    while settled < 3:
        if not page.get_by_label("Question", exact=True).is_visible():
            settled = 0
            page.get_by_role("tab", name="Compare", exact=True).click()
        page.wait_for_timeout(500)
        settled += 1
    page.wait_for_selector("#cmp-right option:checked", state="attached")


def ask(page: Any, tokens: int, system: str) -> None:
    """Have both sides write so many words: at once with a system prompt, at a pace without."""
    page.evaluate(
        """([tokens, system]) => {
            document.querySelector('[name=max_new_tokens]').value = tokens;
            document.querySelector('[name=system]').value = system;
        }""",
        [tokens, system],
    )
    field = page.get_by_label("Question", exact=True)
    field.fill("Go on.")
    field.press("Enter")


def wait_for_end(page: Any, turns: int) -> None:
    """Until the last of so many turns is whole."""
    page.wait_for_function(
        "turns => document.querySelectorAll('.q-cmp-talk .q-cmp-turn').length === turns"
        " && document.querySelector('[data-do=stop]').hidden",
        arg=turns,
        timeout=120_000,
    )


def measured(page: Any, turns: int) -> dict[str, Any]:
    """Frames and changes while one answer is written on both sides."""
    page.wait_for_timeout(SETTLE_MS)
    page.evaluate(WATCH)
    ask(page, MEASURED_TOKENS, "")
    wait_for_end(page, turns)
    seen = page.evaluate("window.endWatch()")
    frames, changes = sorted(seen["frames"]), seen["changes"]
    busiest = max(sum(1 for other in changes if 0 <= other - one < 1000) for one in changes)
    return {
        "frames": len(frames),
        "median_ms": round(statistics.median(frames), 2),
        "p95_ms": round(frames[int(0.95 * len(frames))], 2),
        "longest_ms": round(frames[-1], 1),
        "most_changes_a_second": busiest,
        "changes": len(changes),
    }


def stopped(page: Any, turns: int) -> dict[str, Any]:
    """How soon a click on Stop is obeyed, at different moments of an answer."""
    texts, idle = list[float](), list[float]()
    for number in range(NUM_STOPS):
        ask(page, MEASURED_TOKENS, "")
        turns += 1
        page.wait_for_function(
            "turns => { const all = document.querySelectorAll('.q-cmp-talk .q-cmp-turn');"
            " return all.length === turns"
            " && all[turns - 1].querySelector('.q-cmp-text').textContent"
            " && !document.querySelector('[data-do=stop]').hidden; }",
            arg=turns,
        )
        page.wait_for_timeout(300 + 37 * number)
        seen = page.evaluate(STOP)
        texts.append(seen["text"])
        idle.append(seen["idle"])
        wait_for_end(page, turns)
    return {
        "stops": NUM_STOPS,
        "last_text_median_ms": round(statistics.median(texts), 1),
        "last_text_longest_ms": round(max(texts), 1),
        "idle_median_ms": round(statistics.median(idle), 1),
        "idle_longest_ms": round(max(idle), 1),
    }


def measure(chromium: str) -> dict[str, Any]:
    """Both conversations, in one window."""
    from playwright.sync_api import sync_playwright

    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        open_compare(page, url)
        empty = measured(page, 1)
        turns = 1
        while (turns - 1) * TOKENS_A_TURN < HISTORY_TOKENS:
            ask(page, TOKENS_A_TURN, "at once")
            turns += 1
            wait_for_end(page, turns)
        history = page.evaluate("document.querySelector('.q-cmp-talk').textContent.length")
        full = measured(page, turns + 1)
        stop = stopped(page, turns + 1)
        browser.close()
    return {"empty": empty, "long": full, "characters": history, "stop": stop}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path, metavar="FILE")
    options = parser.parse_args()
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        sys.exit("No Chromium found.")
    load = os.getloadavg()[0]
    found = {
        "hardware": {
            "processor": platform.processor() or platform.machine(),
            "cores": psutil.cpu_count(),
            "load_at_begin": round(load, 2),
        },
        "history_tokens": HISTORY_TOKENS,
        **measure(chromium),
    }
    for name in ("empty", "long", "stop"):
        print(name, found[name])
    if options.save:
        write_json(options.save, found)


if __name__ == "__main__":
    main()
