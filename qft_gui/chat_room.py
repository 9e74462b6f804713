"""One conversation partner for all browser tabs: the chat worker, and who may ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from engine.contract.errors import RequestError
from qft_gui.chat_client import ChatClient, ChatError

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")
SHOW_EVERY_S = 0.1


@dataclass(frozen=True)
class Proof:
    """Whether the two sides were found to be two different models."""

    different: bool
    largest_difference: float


@dataclass(frozen=True)
class Reply:
    """One side's answer so far."""

    text: str = ""
    seconds: float | None = None
    first_token_s: float | None = None
    num_tokens: int | None = None
    is_done: bool = False


@dataclass(frozen=True)
class Settings:
    """How both sides are asked: the same for both."""

    temperature: float = 0.0
    max_new_tokens: int = 200
    seed: int = 0
    system: str = ""

    @classmethod
    def of(cls, temperature: Any, max_new_tokens: Any, seed: Any, system: Any) -> Settings:
        """Settings from inputs, empty ones too, brought into what the worker takes."""
        return cls(
            temperature=min(2.0, max(0.0, float(temperature or 0))),
            max_new_tokens=min(4096, max(1, int(max_new_tokens or 1))),
            seed=max(0, int(seed or 0)),
            system=str(system or ""),
        )


@dataclass(frozen=True)
class Answer:
    """The state of one question; yielded again and again until it is done."""

    replies: dict[Side, Reply] = field(default_factory=dict[Side, Reply])
    proof: Proof | None = None
    loading_s: int | None = None
    problem: str = ""


class ChatRoom:
    """Serializes questions to the chat worker. The models live in the worker's process.

    Args:
        client: Talks to the worker.
    """

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._turn = threading.Lock()
        self._proof: Proof | None = None

    def ask(
        self,
        models: tuple[str, str],
        messages: dict[Side, list[dict[str, str]]],
        settings: Settings,
    ) -> Iterator[Answer]:
        """Answer on the sides that have messages, loading the models first if need be.

        Args:
            models: The original and the tuned model.
            messages: The conversation so far of each side that is asked.
            settings: The same for both sides.

        Yields:
            The answer so far, at most ten times a second; the last one is whole or has a problem.
        """
        if not self._turn.acquire(blocking=False):
            yield Answer(problem="Another tab is being answered. Ask again in a moment.")
            return
        try:
            yield from self._load(models)
            yield from self._stream(messages, settings)
        except ChatError as error:
            yield Answer(proof=self._proof, problem=str(error))
        finally:
            self._turn.release()

    def stop(self) -> None:
        """End the answer that is being given."""
        self._client.stop()

    def close(self) -> None:
        """End the worker, whatever it does."""
        self._client.close()

    def unload(self) -> bool:
        """Free the models' memory; False while a question is being answered."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._client.close()
            self._proof = None
        finally:
            self._turn.release()
        return True

    @property
    def is_loaded(self) -> bool:
        """Whether models are in memory."""
        return self._client.loaded is not None

    def let_go(self, run: Path) -> None:
        """Unload the models if one of them is in this run's folder.

        Raises:
            RequestError: A question is being answered.
        """
        loaded = self._client.loaded or ()
        held = any(path is not None and Path(path).is_relative_to(run) for path in loaded)
        if held and not self.unload():
            raise RequestError(
                "run", "its tuned model is answering a question.", "Stop the answer first."
            )

    def _load(self, models: tuple[str, str]) -> Iterator[Answer]:
        began = time.monotonic()
        if self._client.loaded != models:
            yield Answer(loading_s=0)
        with ThreadPoolExecutor(1, "load-chat") as pool:
            loading = pool.submit(self._client.load, *models)
            while not wait([loading], timeout=1.0).done:
                yield Answer(loading_s=round(time.monotonic() - began))
        found = loading.result()
        self._proof = Proof(bool(found["different"]), float(found["largest_difference"]))

    def _stream(
        self, messages: dict[Side, list[dict[str, str]]], settings: Settings
    ) -> Iterator[Answer]:
        replies: dict[Side, Reply] = {side: Reply() for side in SIDES if side in messages}
        yield Answer(dict(replies), self._proof)
        shown = time.monotonic()
        asked = self._client.ask(
            messages,
            seed=settings.seed,
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            system=settings.system.strip(),
        )
        # Closing this generator, as a closed tab does, closes the client's: the worker stops.
        with closing(asked) as events:
            for event in events:
                replies[event["side"]] = _extended(replies[event["side"]], event)
                if time.monotonic() - shown >= SHOW_EVERY_S:
                    shown = time.monotonic()
                    yield Answer(dict(replies), self._proof)
        yield Answer(dict(replies), self._proof)


def _extended(reply: Reply, event: dict[str, Any]) -> Reply:
    if event["event"] == "text":
        return replace(reply, text=reply.text + event["text"])
    return replace(
        reply,
        seconds=event.get("seconds"),
        first_token_s=event.get("first_token_s"),
        num_tokens=event.get("num_tokens"),
        is_done=True,
    )


def chat_log(runs: Path) -> Path:
    """Where the worker's own output goes."""
    runs.mkdir(parents=True, exist_ok=True)
    return runs / ".chat.log"
