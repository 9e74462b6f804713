"""A chat worker that says as many words as it is asked for, for tests of the page's side."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qft_gui.chat_client import ChatClient

# "say 20 every 0.01" is answered with 20 words, "hold" with one once it is let go on, and "refuse"
# with an error, the models left in memory. After "read" whoever was fetched reads until the stop.
SPEAKER = """
import json, os, queue, sys, threading, time

plan, gate, heard = sys.argv[1], sys.argv[2], open(sys.argv[3], "a", buffering=1)
requests, stopped, there = queue.Queue(), set(), None


def send(number, event, **fields):
    print(json.dumps({"id": number, "event": event, **fields}), flush=True)


def read():
    for line in sys.stdin:
        request = json.loads(line)
        heard.write(json.dumps({"time": time.monotonic(), **request}) + "\\n")
        if request["op"] == "stop":
            stopped.add(request["target"])
        else:
            requests.put(request)
    os._exit(0)


def wait(number=None):
    while not os.path.exists(gate) and number not in stopped:
        time.sleep(0.005)


def answer(number, side, words):
    global there
    if words == ["refuse"]:
        return send(number, "error", message="It is too hot.", advice="Cool it.", loaded=True)
    is_fetched = plan == "swapped" and side != there
    if is_fetched:
        send(number, "loading", side=side, name=side, plan=plan, num_bytes=8, expected_s=len(side))
        wait()
        there = side
        send(number, "fetched", side=side)
    if words[0] == "read":
        words = words[1:]
        while is_fetched and number not in stopped:
            time.sleep(0.005)
    if words == ["hold"]:
        wait(number)
        words = "say 1 every 0".split()
    count, pause, said = int(words[1]), float(words[3]), 0
    while said < count and number not in stopped:
        send(number, "text", side=side, text=f"{side.upper()}{said} ")
        said += 1
        time.sleep(pause)
    send(number, "done", side=side, num_tokens=said, seconds=1.0 if side == "a" else 2.0,
         first_token_s=0.1, tokens_per_s=3.0, stopped="stop" if said < count else "end",
         prompt_tokens=1, dropped_turns=2 if side == "a" else 0)


threading.Thread(target=read, daemon=True).start()
while True:
    request = requests.get()
    number = request["id"]
    if request["op"] == "load":
        there = "b"
        send(number, "loading", side="a", name="x", plan=plan, num_bytes=8, expected_s=None)
        if request["b"] == "slow" or request["a"] == "slow":
            time.sleep(600)
        send(number, "loaded", plan=plan, different=True, largest_difference=1.0, seconds=0.1)
    else:
        for side, messages in request.get("messages", {}).items():
            if number not in stopped:
                answer(number, side, messages[-1]["content"].split())
        send(number, "end")
"""


class Speaker:
    """The program, and what it heard.

    Args:
        folder: For its files.
        plan: How its models share memory.
    """

    def __init__(self, folder: Path, plan: str = "resident") -> None:
        script, self._heard, self._gate = (
            folder / name for name in ("speaker.py", "heard.jsonl", "gate")
        )
        script.write_text(SPEAKER)
        command = [sys.executable, "-S", str(script), plan, str(self._gate), str(self._heard)]
        self.client = ChatClient(folder / "speaker.log", command=command)

    def go_on(self) -> None:
        """Let held answers end, and models that take turns come into memory."""
        self._gate.touch()

    def hold(self) -> None:
        """Hold them from now on, as at the beginning."""
        self._gate.unlink()

    def heard(self, operation: str) -> list[dict[str, Any]]:
        """The requests of one kind so far."""
        lines = self._heard.read_text().splitlines() if self._heard.exists() else []
        return [one for one in map(json.loads, lines) if one["op"] == operation]
