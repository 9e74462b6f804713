"""Answers from one or two models, on pipes: it must not outlive its caller.

`python -m engine.chat_worker` reads one JSON object per line and writes one per line. End of input
ends it, and with it the memory that the models hold and the lock of its GPU. Every request has an
`id`; its answers carry that and an `event`, and the last one is `end`.

`{"op": "load", "b": TARGET, "a": TARGET or null, "runs": DIR, "device": "auto"}`
    What answers, under the names `a` and `b`. `a` may be left out; null is the model that `b` was
    made from. `loading` comes before each model, then `loaded`, or `error`: then nothing answers.
    Every `error` says with `loaded` whether models are still there.
`{"op": "ask", "messages": {SIDE: [...]}, "system": TEXT, ...}`
    With the fields of `engine.sampling.Sampling`. One side after the other: where it has to be
    fetched `loading` and `fetched`, then `text` at most ten times a second, `done`.
`{"op": "prompt", "messages": {SIDE: [...]}, "system": TEXT, "max_new_tokens": N}`
    `prompt` for each side: what its model would read.
`{"op": "stop", "target": ID}`
    Ends that answer, and is not answered itself.
`{"op": "unload"}`
    Frees models and GPU.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from engine.chat_models import ChatModels, Loading
from engine.chat_notes import notes_on
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.run_dir import default_runs
from engine.conversation import Message, checked_messages, fitting_prompt
from engine.generate import reply_to
from engine.identity_proof import IdentityProof
from engine.model import choose_torch_device
from engine.out_of_memory import is_out_of_memory
from engine.pieces import TimedPieces
from engine.sampling import Sampling, sampling_from
from engine.target import Target, find_base, find_target

MAX_LINE = 4 << 20
SIDES = ("a", "b")


class ChatWorker:
    """Holds the models and answers one request at a time.

    Args:
        output: Where answers go, a line each.
        **options: Of `ChatModels`.
    """

    def __init__(self, output: TextIO, **options: Any) -> None:
        self._output = output
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._stopped: set[int] = set()
        self.models = ChatModels(self._tell_loading, **options)
        self._number = 0

    def serve(self, lines: TextIO) -> None:
        """Until the input ends. Stop requests overtake: they are read in a thread of their own."""
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        while (request := self._requests.get()) is not None:
            self.answer(request)

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            self.hear(line)
        # The caller is gone: end at once, whatever is being answered.
        os._exit(0)

    def hear(self, line: str) -> None:
        """Take a request in; one to stop works at once, whatever is being answered."""
        request = _parse(line)
        if request.get("op") == "stop":
            self._stopped.add(_number_in(request, "target"))
        else:
            self._requests.put(request)

    def answer(self, request: dict[str, Any]) -> None:
        """Do what a request says; whatever is wrong with it is told, and the worker lives."""
        self._number = _number_in(request, "id")
        try:
            self._do(request)
        except (RequestError, RequestErrors) as error:
            first = mistakes(error)[0]
            self._complain(**first.as_json())
        except (KeyError, TypeError, ValueError) as error:
            self._malformed(error)
        except Exception as error:  # the last line of defence: told, never hidden
            self._fault(error)
        finally:
            self._stopped.discard(self._number)
            self._send("end")

    def _fault(self, error: Exception) -> None:
        """What is in memory now is in doubt, so nothing is kept of it."""
        self.models.unload()
        if is_out_of_memory(error):
            message = "There is not enough memory for this."
            advice = "Stop a running training or close other programs, then load again."
        else:
            traceback.print_exception(error)
            message = f"This failed for a reason that is not known ({type(error).__name__})."
            advice = "Ask again, which loads the models anew; the log of the chat has the rest."
        self._complain(message=message, advice=advice)

    def _malformed(self, error: Exception) -> None:
        self._complain(message=f"The request is malformed: {str(error)[:200]}", advice="")

    def _complain(self, **fields: str) -> None:
        """Say what is wrong, and whether there is still somebody to answer the next question."""
        self._send("error", **fields, loaded=bool(self.models.sides))

    def _do(self, request: dict[str, Any]) -> None:
        operation = request.get("op")
        if operation == "load":
            self._load(request)
        elif operation == "ask":
            self._ask(request)
        elif operation == "prompt":
            self._show_prompts(request)
        elif operation == "unload":
            self.models.unload()
        else:
            raise RequestError("op", f"unknown request {str(operation)[:40]!r}.")

    def _load(self, request: Mapping[str, Any]) -> None:
        started = time.perf_counter()
        # Whatever becomes of this request, what was there before is not what was asked for.
        self.models.clear()
        try:
            device = choose_torch_device(str(request.get("device") or "auto"))
            proof = self.models.load(_targets_in(request), device)
        except BaseException:
            self.models.unload()  # where nothing is loaded, the device is not ours either
            raise
        seconds = time.perf_counter() - started
        self._send("loaded", **self._loaded(proof, str(device)), seconds=round(seconds, 3))

    def _loaded(self, proof: IdentityProof, device: str) -> dict[str, Any]:
        models, sides = self.models, self.models.sides
        shared = models.plan == "shared"
        base_form = next(iter(sides.values())).form if shared else None
        rate = models.bytes_per_s if models.plan == "swapped" else None
        return {
            "plan": models.plan,
            "device": device,
            "sides": {
                name: {
                    "name": side.target.name,
                    "form": side.form,
                    "is_adapter": side.parts is not None,
                    "bytes": side.num_bytes,
                    "context": side.context,
                    "wait_s": side.num_bytes / rate if rate else None,
                }
                for name, side in sides.items()
            },
            "base_form": base_form,
            "base_difference": models.base_difference(),
            "proof": proof.as_json(),
            "different": proof.verdict == "different",
            "largest_difference": proof.largest_difference,
            "notes": notes_on(models, proof),
        }

    def _ask(self, request: Mapping[str, Any]) -> None:
        sampling = sampling_from(request)
        for name, messages in self._conversations(request).items():
            if self._is_stopped():
                break
            self._stream(name, messages, sampling)

    def _conversations(self, request: Mapping[str, Any]) -> dict[str, list[Message]]:
        """By side, checked before any is answered."""
        by_side, system = request["messages"], str(request.get("system") or "")
        found = {name: checked_messages(one, system) for name, one in dict(by_side).items()}
        for name in found:
            self.models.side(name)
        return found

    def _stream(self, name: str, messages: list[Message], sampling: Sampling) -> None:
        is_there = self.models.side(name).loaded is not None
        loaded = self.models.use(name)
        if not is_there:
            self._send("fetched", side=name)
        pieces = TimedPieces(lambda text: self._send("text", side=name, text=text))
        reply = reply_to(
            loaded.model, loaded.tokenizer, messages, sampling, pieces.add, self._is_stopped
        )
        pieces.flush()
        rate = reply.tokens_per_s
        self._send(
            "done",
            side=name,
            num_tokens=reply.num_tokens,
            seconds=round(reply.seconds, 3),
            first_token_s=round(reply.first_token_s, 3),
            tokens_per_s=round(rate, 2) if rate else None,
            stopped=reply.stopped,
            prompt_tokens=reply.prompt_tokens,
            dropped_turns=reply.dropped_turns,
        )

    def _show_prompts(self, request: Mapping[str, Any]) -> None:
        length = sampling_from(request).max_new_tokens
        for name, messages in self._conversations(request).items():
            side = self.models.side(name)
            prompt = fitting_prompt(side.tokenizer, messages, side.context, length)
            self._send(
                "prompt",
                side=name,
                text=prompt.text,
                num_tokens=len(prompt.tokens),
                dropped_turns=prompt.dropped_turns,
                context=side.context,
            )

    def _is_stopped(self) -> bool:
        return self._number in self._stopped

    def _tell_loading(self, loading: Loading) -> None:
        self._send("loading", **vars(loading))

    def _send(self, event: str, **fields: Any) -> None:
        self._output.write(json.dumps({"id": self._number, "event": event, **fields}) + "\n")
        self._output.flush()


def _parse(line: str) -> dict[str, Any]:
    try:
        request = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        request = None
    return request if isinstance(request, dict) else {"op": "a line that is no JSON object"}


def _number_in(request: Mapping[str, Any], name: str) -> int:
    value = request.get(name)
    return value if isinstance(value, int) else 0


def _targets_in(request: Mapping[str, Any]) -> dict[str, Target]:
    runs = Path(str(request["runs"])) if request.get("runs") else default_runs()
    found = {name: request[name] for name in SIDES if name in request}
    if not any(found.values()):
        raise RequestError("b", "no model is named.", "Name one to talk to.")
    if "b" in found and found["b"] is None:
        del found["b"]
    return {
        name: find_target(str(text), runs) if text else find_base(str(found["b"]), runs)
        for name, text in found.items()
    }


def main() -> None:
    """Speak the protocol on the real standard output; libraries print to the log instead."""
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
        ChatWorker(protocol).serve(lines)


if __name__ == "__main__":
    main()
