"""One conversation partner for all browser tabs: the chat worker, and who may ask it."""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.contract.errors import RequestError
from qft_gui.answers import SIDES, Answer, Proof, Reply, Settings, Side
from qft_gui.chat_client import ChatClient, ChatError
from qft_gui.chat_floor import ANOTHER_TAB, Asker, Floor
from qft_gui.view.sentences import refusal

SHOW_EVERY_S = 0.1
LOOK_AGAIN_S = 1.0
STOPPED = "Stopped before it was answered."
Models = tuple[str | None, str | None]
_CHECKPOINT = re.compile(r"(.+)@(\d{1,9})")


class ChatRoom:
    """Serializes questions to the chat worker. The models live in the worker's process.

    Args:
        client: Talks to the worker.
        runs: Folder that names of runs are looked up in.
    """

    def __init__(self, client: ChatClient, runs: Path | None = None) -> None:
        self._client = client
        self._runs = runs
        self._floor = Floor()
        self._proof: Proof | None = None
        self._loaded_for: Asker | None = None
        self._in_memory: Side | None = None
        self._is_loading = False
        self._stamp: tuple[int | None, ...] = ()

    def prompts(
        self, messages: dict[Side, list[dict[str, str]]], settings: Settings
    ) -> dict[str, dict[str, Any]]:
        """What each side would read: `text`, `num_tokens`, `dropped_turns`, `context`.

        Raises:
            ChatError: Nothing is loaded, or an answer is being given.
        """
        if self.busy:
            raise ChatError(self.busy)
        return self._client.prompts(
            dict(messages), system=settings.system.strip(), max_new_tokens=settings.max_new_tokens
        )

    def ask(
        self,
        models: Models,
        messages: dict[Side, list[dict[str, str]]],
        settings: Settings,
        asker: Asker | None = None,
    ) -> Generator[Answer, None, None]:
        """Answer on the sides that have messages, loading the models first if need be.

        Args:
            models: Sides `a` and `b` as the client's `load` takes them; `b` None for `a` alone.
            messages: The conversation so far of each side that is asked.
            settings: The same for both sides.
            asker: Who asks; only by it the answer can be stopped.

        Yields:
            The answer so far, at most ten times a second; the last one is whole or has a problem.
        """
        asker = asker or Asker()
        try:
            if not (yield from self._wait(asker)):
                return
            yield from self._load(models, asker)
            yield from self._stream(messages, settings, asker)
        except ChatError as error:
            problem = STOPPED if asker.is_stopped else refusal(error)
            yield Answer(proof=self._proof, problem=problem)
        finally:
            self._floor.leave(asker)

    def stop(self, asker: Asker) -> None:
        """End the answer to one who asked, and no other.

        A worker that loads a model hears nothing, so it ends with all that it holds.
        """
        self._floor.stop(asker, self._end_answer)

    def _end_answer(self) -> None:
        if self._is_loading:
            self._client.close()
        self._client.stop()

    def close(self) -> None:
        """End the worker, whatever it does."""
        self._client.close()

    def unload(self) -> bool:
        """Free the models' memory; False while a question is being answered."""
        asker = Asker()
        try:
            if not self._floor.take(asker):
                return False
            self._client.close()
            self._proof = None
        finally:
            self._floor.leave(asker)
        return True

    @property
    def busy(self) -> str:
        """What is being answered, in a sentence; empty for nothing."""
        holder = self._floor.holder
        return holder.words() if holder is not None else ""

    def proof_of(self, models: Models) -> Proof | None:
        """What was found of these, if they are in memory now."""
        return self._proof if self._client.loaded == models else None

    @property
    def worker_pid(self) -> int | None:
        """The process that holds the models, or is loading them; None while there is none."""
        return self._client.pid

    @property
    def loaded_for(self) -> Asker | None:
        """Who asked those that are in memory; None for nobody there."""
        return self._loaded_for if self.is_loaded else None

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

    def _wait(self, asker: Asker) -> Generator[Answer, None, bool]:
        """Wait for those who came before; False if nobody wants the answer any more."""
        patience_s = 0.0
        while not self._floor.take(asker, patience_s):
            if asker.is_stopped:
                yield Answer(problem=STOPPED)
                return False
            yield Answer(waiting=self.busy or ANOTHER_TAB)
            patience_s = LOOK_AGAIN_S
        return True

    def _load(self, models: Models, asker: Asker) -> Iterator[Answer]:
        began = time.monotonic()
        stamp = self._stamp_of(models)
        if self._client.loaded == models and stamp != self._stamp:
            self._client.close()  # a run that went on has another result under the same name
        self._stamp = stamp
        is_there = self._client.loaded == models
        if not is_there:
            self._proof = None
            yield Answer(loading_s=0)
        expected: list[float | None] = [None]
        self._is_loading = True
        try:
            self._end_if_stopped(asker)
            with ThreadPoolExecutor(1, "load-chat") as pool:
                loading = pool.submit(
                    self._client.load,
                    *models,
                    runs=None if self._runs is None else str(self._runs),
                    on_loading=lambda event: expected.append(event.get("expected_s")),
                )
                while not wait([loading], timeout=LOOK_AGAIN_S).done:
                    if asker.is_stopped:
                        self._client.close()
                    seconds = round(time.monotonic() - began)
                    yield Answer(loading_s=seconds, expected_s=expected[-1])
        finally:
            self._is_loading = False
        self._proof, self._loaded_for = _proof_in(loading.result()), asker
        if not is_there:
            self._in_memory = "b" if self._proof.plan == "swapped" else None

    @staticmethod
    def _end_if_stopped(asker: Asker) -> None:
        if asker.is_stopped:
            raise ChatError(STOPPED)

    def _stamp_of(self, models: Models) -> tuple[int | None, ...]:
        """When the results and checkpoints of the runs among these were written."""
        runs = self._runs
        return () if runs is None else tuple(_written(runs, str(text)) for text in models)

    def _stream(
        self, messages: dict[Side, list[dict[str, str]]], settings: Settings, asker: Asker
    ) -> Iterator[Answer]:
        self._end_if_stopped(asker)
        replies: dict[str, Reply] = {side: Reply() for side in SIDES if side in messages}
        yield Answer(dict(replies), self._proof)
        shown = time.monotonic()
        # Of two that take turns in memory the one that is there answers first: in a blind turn the
        # wait is then the same whoever is shown first.
        asked = dict(sorted(messages.items(), key=lambda item: item[0] != self._in_memory))
        sampling = {**vars(settings), "system": settings.system.strip()}
        # Closing this generator, as a closed tab does, closes the client's: the worker stops.
        with closing(self._client.ask(asked, **sampling)) as events:
            try:
                for event in events:
                    self._is_loading = event["event"] == "loading"
                    if asker.is_stopped:
                        self._end_answer()
                    if event["event"] in ("loading", "fetched"):
                        side, expected = event["side"], event.get("expected_s")
                        self._in_memory = side
                        side = side if self._is_loading else None
                        yield Answer(dict(replies), self._proof, fetching=side, expected_s=expected)
                        continue
                    replies[event["side"]] = _extended(replies[event["side"]], event)
                    if time.monotonic() - shown >= SHOW_EVERY_S:
                        shown = time.monotonic()
                        yield Answer(dict(replies), self._proof)
            finally:
                self._is_loading = False
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
    proof = loaded.get("proof", {})
    return Proof(
        bool(loaded["different"]),
        None if difference is None else float(difference),
        proof.get("same_as_recorded"),
        tuple(loaded.get("notes", ())),
        str(loaded.get("plan", "")),
        str(loaded.get("device", "")),
        {name: str(told[name]["form"]) for name in SIDES if name in told},
        {name: told[name].get("wait_s") for name in SIDES if name in told},
        loaded.get("base_difference"),
        frozenset(name for name in SIDES if told.get(name, {}).get("is_adapter")),
        str(proof.get("verdict", "")),
        tuple(side for side in SIDES if proof.get("sides", {}).get(side, {}).get("record")),
    )


def _written(runs: Path, text: str) -> int | None:
    """When what a run's name, or a checkpoint's, stands for was written."""
    named = _CHECKPOINT.fullmatch(text)
    step = runs / named[1] / f"checkpoints/step-{int(named[2]):06d}" if named else None
    for folder in (runs / text / "export", step):
        with suppress(OSError, ValueError):
            if folder is not None:
                return folder.stat().st_mtime_ns
    return None


def _is_of(target: str, run: Path) -> bool:
    """Whether a name that was loaded means a result or a checkpoint of a run."""
    return (
        target == run.name or target.startswith(f"{run.name}@") or Path(target).is_relative_to(run)
    )


def chat_log(runs: Path) -> Path:
    """Where the worker's own output goes."""
    runs.mkdir(parents=True, exist_ok=True)
    return runs / ".chat.log"
