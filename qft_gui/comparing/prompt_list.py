"""A list of prompts that both sides answered, as it lies in the run's folder.

`comparisons/ID.jsonl` has one writer, the window: a first line that says who was asked what and
how, then a line for each reply and each vote. What a crash tore is passed over and done again.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from engine.contract.errors import RequestError
from engine.contract.votes import Choice
from qft_gui.answers import SIDES, Reply, Settings, Side
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.turn import Turn, drawn_order

FOLDER = "comparisons"
MOST_PROMPTS = 200
LONGEST_PROMPT = 4000  # characters
_KEPT = (
    *("text", "seconds", "first_token_s", "num_tokens", "tokens_per_s", "stopped"),
    "fingerprint",
)


@dataclass
class PromptList:
    """Prompts, replies and votes of one list.

    Attributes:
        path: The file.
        time: When it was begun, in seconds since 1970.
        pair: Who answers.
        names: What people call them.
        settings: How they are asked.
        prompts: What they are asked, in order.
        secret: Decides who is shown on the left.
        replies: By number of the prompt, from 0, and side.
        votes: By number of the prompt.
        num_repeated: Prompts that were left out, since they were there already.
    """

    path: Path
    time: float
    pair: Pair
    names: dict[Side, str]
    settings: Settings
    prompts: tuple[str, ...]
    secret: bytes
    replies: dict[tuple[int, Side], Reply] = field(default_factory=dict[tuple[int, Side], Reply])
    votes: dict[int, Choice] = field(default_factory=dict[int, Choice])
    num_repeated: int = 0
    _writing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def id(self) -> str:
        """The file's name."""
        return self.path.stem

    @property
    def num_answered(self) -> int:
        """Prompts that both sides have answered."""
        return sum(self.is_answered(number) for number in range(len(self.prompts)))

    @property
    def is_answered_whole(self) -> bool:
        """Whether nothing is left to answer."""
        return self.num_answered == len(self.prompts)

    def is_answered(self, number: int) -> bool:
        """Whether both replies to a prompt are there."""
        return all((number, side) in self.replies for side in SIDES)

    def next_to_vote(self) -> int | None:
        """The first prompt with both replies and no vote."""
        for number in range(len(self.prompts)):
            if self.is_answered(number) and number not in self.votes:
                return number
        return None

    def missing(self, *, side_by_side: bool) -> Iterator[tuple[int, Side]]:
        """What is still to be answered: prompt by prompt, or one side after the other."""
        numbers = range(len(self.prompts))
        wanted: list[tuple[int, Side]]
        if side_by_side:
            wanted = [(number, side) for number in numbers for side in SIDES]
        else:
            wanted = [(number, side) for side in SIDES for number in numbers]
        return (one for one in wanted if one not in self.replies)

    def turn(self, number: int) -> Turn:
        """A prompt with its replies, as a page shows a turn of a conversation."""
        return Turn(
            number=number + 1,
            question=self.prompts[number],
            order=drawn_order(self.secret, str(number)),
            names=self.names,
            settings=self.settings,
            is_blind=True,
            replies={side: self.replies[number, side] for side in SIDES},
            asked=dict.fromkeys(SIDES, self.settings),
            vote=self.votes.get(number),
            is_answering=False,
        )

    def add_reply(self, number: int, side: Side, reply: Reply) -> None:
        """Keep a reply, in memory and in the file.

        Raises:
            OSError: It cannot be written.
        """
        kept = {name: getattr(reply, name) for name in _KEPT}
        self._append({"kind": "reply", "prompt": number, "side": side, **kept})
        self.replies[number, side] = reply

    def add_vote(self, number: int, choice: Choice) -> None:
        """Keep a vote.

        Raises:
            OSError: It cannot be written.
        """
        self._append({"kind": "vote", "prompt": number, "choice": choice, "time": time.time()})
        self.votes[number] = choice

    def _append(self, line: dict[str, Any]) -> None:
        with self._writing, self.path.open("ab+") as file:
            if file.tell() and not _ends_whole(file):
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def begin_list(
    run: Path, pair: Pair, names: dict[Side, str], settings: Settings, prompts: tuple[str, ...]
) -> PromptList:
    """Make the file of a new list.

    Raises:
        RequestError: The list is empty or too long, or the folder cannot be written to.
    """
    written = [prompt.strip() for prompt in prompts if prompt.strip()]
    chosen = _checked(written)
    now, secret = time.time(), secrets.token_bytes(16)
    identity = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{secrets.token_hex(3)}"
    path = run / FOLDER / f"{identity}.jsonl"
    found = PromptList(path, now, pair, names, settings, chosen, secret)
    found.num_repeated = len(written) - len(chosen)
    head = {
        "kind": "list",
        "time": now,
        "pair": vars(pair),
        "names": names,
        "settings": {**settings.as_json(), "system": settings.system},
        "prompts": chosen,
        "secret": secret.hex(),
        "num_repeated": found.num_repeated,
    }
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as file:
            file.write(json.dumps(head).encode() + b"\n")
    except OSError as error:
        reason = error.strerror or "it fails"
        raise RequestError("prompts", f"{path} cannot be written ({reason}).") from error
    return found


def _checked(prompts: list[str]) -> tuple[str, ...]:
    """Each prompt once."""
    chosen = tuple(dict.fromkeys(prompts))
    if not chosen:
        raise RequestError("prompts", "The list is empty.", "Write one prompt on each line.")
    if len(chosen) > MOST_PROMPTS:
        raise RequestError(
            "prompts", f"The list has {len(chosen):,} prompts.", f"Ask at most {MOST_PROMPTS}."
        )
    long = next((at for at, one in enumerate(chosen, 1) if len(one) > LONGEST_PROMPT), None)
    if long is not None:
        raise RequestError(
            "prompts",
            f"Prompt {long} is longer than {LONGEST_PROMPT:,} characters.",
            "Shorten it, or leave it out.",
        )
    return chosen


def read_list(path: Path) -> PromptList | None:
    """A list as its file holds it; None for what is none."""
    found: PromptList | None = None
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            entry = json.loads(line)
            if found is None:
                found = _head(path, entry)
            else:
                _add(found, entry)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def _head(path: Path, entry: dict[str, Any]) -> PromptList | None:
    if entry["kind"] != "list":
        return None
    names: dict[Side, str] = {side: str(entry["names"][side]) for side in SIDES}
    settings = Settings(**entry["settings"])
    prompts = tuple(str(prompt) for prompt in entry["prompts"])
    secret = bytes.fromhex(entry["secret"])
    return PromptList(
        *(path, float(entry["time"]), Pair(**entry["pair"]), names, settings, prompts, secret),
        num_repeated=int(entry.get("num_repeated", 0)),
    )


def _add(found: PromptList, entry: dict[str, Any]) -> None:
    number = int(entry["prompt"])
    if not 0 <= number < len(found.prompts):
        return
    if entry["kind"] == "reply" and entry["side"] in SIDES:
        told: dict[str, Any] = {name: entry.get(name) for name in _KEPT if name != "text"}
        found.replies[number, entry["side"]] = Reply(str(entry["text"]), **told, is_done=True)
    elif entry["kind"] == "vote" and entry["choice"] in get_args(Choice):
        found.votes[number] = cast("Choice", entry["choice"])


def newest_list(run: Path) -> PromptList | None:
    """The list that was begun last in a run's folder."""
    folder = run / FOLDER
    paths = sorted(folder.glob("*.jsonl"), reverse=True) if folder.is_dir() else []
    return next((found for path in paths if (found := read_list(path)) is not None), None)


def _ends_whole(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
