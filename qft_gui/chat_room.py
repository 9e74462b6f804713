"""One conversation partner for all browser tabs: the chat worker, and who may ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.contract.errors import RequestError
from qft_gui.answers import SIDES, Answer, Proof, Reply, Settings, Side
from qft_gui.chat_client import ChatClient, ChatError

SHOW_EVERY_S = 0.1
BUSY = "Another tab is being answered. Ask again in a moment."
Models = tuple[str | None, str | None]


class ChatRoom:
    """Serializes questions to the chat worker. The models live in the worker's process.

    Args:
        client: Talks to the worker.
        runs: Folder that names of runs are looked up in.
    """

    def __init__(self, client: ChatClient, runs: Path | None = None) -> None:
        self._client = client
        self._runs = runs
        self._turn = threading.Lock()
        self._proof: Proof | None = None
        self._is_loading = False
        self._stamp: tuple[int | None, ...] = ()

    def prompts(
        self, messages: dict[Side, list[dict[str, str]]], settings: Settings
    ) -> dict[str, dict[str, Any]]:
        """What each side would read: `text`, `num_tokens`, `dropped_turns`, `context`.

        Raises:
            ChatError: Nothing is loaded, or an answer is being given.
        """
        return self._client.prompts(
            dict(messages), system=settings.system.strip(), max_new_tokens=settings.max_new_tokens
        )

    def ask(
        self,
        models: Models,
        messages: dict[Side, list[dict[str, str]]],
        settings: Settings,
    ) -> Generator[Answer, None, None]:
        """Answer on the sides that have messages, loading the models first if need be.

        Args:
            models: Sides `a` and `b` as the client's `load` takes them; `b` None for `a` alone.
            messages: The conversation so far of each side that is asked.
            settings: The same for both sides.

        Yields:
            The answer so far, at most ten times a second; the last one is whole or has a problem.
        """
        if not self._turn.acquire(blocking=False):
            yield Answer(problem=BUSY)
            return
        try:
            yield from self._load(models)
            yield from self._stream(messages, settings)
        except ChatError as error:
            yield Answer(proof=self._proof, problem=str(error))
        finally:
            self._turn.release()

    def stop(self) -> None:
        """End the answer that is being given; models that are being loaded leave memory."""
        if self._is_loading:
            self._client.close()
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

    @property
    def loaded(self) -> Models | None:
        """Both sides in memory, as the client's `load` took them."""
        return self._client.loaded

    def let_go(self, run: Path) -> None:
        """Unload the models if one of them is in this run's folder.

        Raises:
            RequestError: A question is being answered.
        """
        loaded = [text for text in self._client.loaded or () if text is not None]
        held = any(_is_of(text, run) for text in loaded)
        if held and not self.unload():
            raise RequestError(
                "run", "its tuned model is answering a question.", "Stop the answer first."
            )

    def _load(self, models: Models) -> Iterator[Answer]:
        began = time.monotonic()
        stamp = self._stamp_of(models)
        if self._client.loaded == models and stamp != self._stamp:
            self._client.close()  # a run that went on has another result under the same name
        self._stamp = stamp
        if self._client.loaded != models:
            yield Answer(loading_s=0)
        expected: list[float | None] = [None]
        with ThreadPoolExecutor(1, "load-chat") as pool:
            loading = pool.submit(
                self._client.load,
                *models,
                runs=None if self._runs is None else str(self._runs),
                on_loading=lambda event: expected.append(event.get("expected_s")),
            )
            self._is_loading = True
            try:
                while not wait([loading], timeout=1.0).done:
                    seconds = round(time.monotonic() - began)
                    yield Answer(loading_s=seconds, expected_s=expected[-1])
            finally:
                self._is_loading = False
        self._proof = _proof_in(loading.result())

    def _stamp_of(self, models: Models) -> tuple[int | None, ...]:
        """When the results of the runs among these were written."""
        if self._runs is None:
            return ()
        stamps: list[int | None] = []
        for text in models:
            try:
                stamps.append((self._runs / str(text) / "export").stat().st_mtime_ns)
            except (OSError, ValueError):
                stamps.append(None)
        return tuple(stamps)

    def _stream(
        self, messages: dict[Side, list[dict[str, str]]], settings: Settings
    ) -> Iterator[Answer]:
        replies: dict[str, Reply] = {side: Reply() for side in SIDES if side in messages}
        yield Answer(dict(replies), self._proof)
        shown = time.monotonic()
        asked = self._client.ask(messages, **{**vars(settings), "system": settings.system.strip()})
        # Closing this generator, as a closed tab does, closes the client's: the worker stops.
        with closing(asked) as events:
            for event in events:
                if event["event"] == "loading":
                    expected = event.get("expected_s")
                    yield Answer(dict(replies), self._proof, loading_s=0, expected_s=expected)
                    continue
                replies[event["side"]] = _extended(replies[event["side"]], event)
                if time.monotonic() - shown >= SHOW_EVERY_S:
                    shown = time.monotonic()
                    yield Answer(dict(replies), self._proof)
        yield Answer(dict(replies), self._proof)


def _extended(reply: Reply, event: dict[str, Any]) -> Reply:
    if event["event"] == "text":
        return replace(reply, text=reply.text + event["text"])
    told = {key: event[key] for key in _TOLD if key in event}
    return replace(reply, **told, is_done=True)


_TOLD = (
    *("seconds", "first_token_s", "num_tokens", "tokens_per_s"),
    *("stopped", "prompt_tokens", "dropped_turns"),
)


def _proof_in(loaded: dict[str, Any]) -> Proof:
    difference, told = loaded["largest_difference"], loaded.get("sides", {})
    return Proof(
        bool(loaded["different"]),
        None if difference is None else float(difference),
        loaded.get("proof", {}).get("same_as_recorded"),
        tuple(loaded.get("notes", ())),
        str(loaded.get("plan", "")),
        str(loaded.get("device", "")),
        {name: str(told[name]["form"]) for name in SIDES if name in told},
        {name: told[name].get("wait_s") for name in SIDES if name in told},
        loaded.get("base_difference"),
    )


def _is_of(target: str, run: Path) -> bool:
    """Whether a name that was loaded means a result or a checkpoint of a run."""
    return (
        target == run.name or target.startswith(f"{run.name}@") or Path(target).is_relative_to(run)
    )


def chat_log(runs: Path) -> Path:
    """Where the worker's own output goes."""
    runs.mkdir(parents=True, exist_ok=True)
    return runs / ".chat.log"
