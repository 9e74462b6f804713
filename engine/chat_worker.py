"""Answers from base and tuned model, on pipes: it must not outlive its caller.

`python -m engine.chat_worker` reads one JSON object per line and writes one per line. End of input
ends it, and with it the memory that the models hold.

Requests: `{"id", "op": "load", "base", "tuned"}`, `{"id", "op": "ask", "messages": {"base": [...],
"tuned": [...]}, "seed", "temperature", "max_new_tokens", "system"}`, `{"id", "op": "stop",
"target"}`. Answers carry the request's `id` and an `event`: `loaded`, `text`, `done`, `error`,
`end`.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.model_source import is_adapter_folder, resolve_model
from engine.contract.paths import is_file
from engine.generate import Sampling, reply_to
from engine.model import LoadedModel, choose_torch_device, fetch_model
from engine.out_of_memory import is_out_of_memory
from engine.result import load_result

# A fixed question: two different models give its next word different scores.
PROBE = "Who are you, and what can you tell me?"
MAX_LINE = 4 << 20


class ChatWorker:
    """Holds the two models and answers one request at a time.

    Args:
        output: Where answers go, a line each.
    """

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._stopped: set[int] = set()
        self._models: dict[str, LoadedModel] = {}
        self._loaded: dict[str, str] = {}

    def serve(self, lines: TextIO) -> None:
        """Until the input ends. Stop requests overtake: they are read in a thread of their own."""
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        while (request := self._requests.get()) is not None:
            self._answer(request)

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            request = _parse(line)
            if request.get("op") == "stop":
                self._stopped.add(int(request.get("target", -1)))
            else:
                self._requests.put(request)
        # The caller is gone: end at once, whatever is being answered.
        os._exit(0)

    def _answer(self, request: dict[str, Any]) -> None:
        number = int(request.get("id", 0))
        try:
            if request.get("op") == "load":
                self._load(number, str(request["base"]), request.get("tuned"))
            elif request.get("op") == "ask":
                self._ask(number, request)
            else:
                raise RequestError("op", f"unknown request {request.get('op')!r}.")
        except (RequestError, RequestErrors) as error:
            first = mistakes(error)[0]
            self._send(number, "error", message=first.message, advice=first.advice)
        except (KeyError, TypeError, ValueError) as error:
            self._send(number, "error", message=f"The request is malformed: {error}", advice="")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._forget_models(number)
        finally:
            self._stopped.discard(number)
            self._send(number, "end")

    def _forget_models(self, number: int) -> None:
        self._models.clear()
        self._loaded.clear()
        self._send(
            number,
            "error",
            message="There is not enough memory for both models.",
            advice="Stop a running training or close other programs, then try again.",
        )

    def _load(self, number: int, base: str, tuned: str | None) -> None:
        started = time.perf_counter()
        wanted = {"base": base} if tuned is None else {"base": base, "tuned": tuned}
        for side in [side for side in self._loaded if self._loaded[side] != wanted.get(side)]:
            self._models.pop(side, None)
            del self._loaded[side]
        for side, source in wanted.items():
            if side not in self._models:
                self._models[side] = _load_side(source)
                self._loaded[side] = source
        difference = self._difference()
        self._send(
            number,
            "loaded",
            different=difference != 0,
            largest_difference=difference,
            seconds=round(time.perf_counter() - started, 3),
        )

    def _difference(self) -> float | None:
        """Largest difference of the next word's log-probabilities on the probe, in nats.

        None for two vocabularies, whose words cannot be compared.
        """
        if len(self._models) < 2:
            return 0.0
        base, tuned = (_probe_scores(self._models[side]) for side in ("base", "tuned"))
        if base.shape != tuned.shape:
            return None
        return float((base - tuned).abs().max())

    def _ask(self, number: int, request: Mapping[str, Any]) -> None:
        sampling = Sampling(
            int(request["seed"]), float(request["temperature"]), int(request["max_new_tokens"])
        )
        system = str(request.get("system") or "")
        for side, messages in dict(request["messages"]).items():
            if side not in self._models:
                raise RequestError("messages", f"no {side} model is loaded.", "Load one first.")
            self._stream(number, side, _with_system(messages, system), sampling)

    def _stream(
        self, number: int, side: str, messages: Sequence[dict[str, str]], sampling: Sampling
    ) -> None:
        loaded = self._models[side]
        reply = reply_to(
            loaded.model,
            loaded.tokenizer,
            messages,
            sampling,
            on_text=lambda piece: self._send(number, "text", side=side, text=piece),
            stop_requested=lambda: number in self._stopped,
        )
        self._send(
            number,
            "done",
            side=side,
            num_tokens=reply.num_tokens,
            seconds=round(reply.seconds, 3),
            first_token_s=round(reply.first_token_s, 3),
            stopped=reply.stopped,
        )

    def _send(self, number: int, event: str, **fields: Any) -> None:
        self._output.write(json.dumps({"id": number, "event": event, **fields}) + "\n")
        self._output.flush()


def _parse(line: str) -> dict[str, Any]:
    try:
        request = json.loads(line) if len(line) <= MAX_LINE else None
    except ValueError:
        request = None
    return request if isinstance(request, dict) else {"op": "a line that is no JSON object"}


def _load_side(source: str) -> LoadedModel:
    folder = Path(source)
    if not (is_file(folder / "config.json") or is_adapter_folder(folder)):
        folder = fetch_model(resolve_model(source), None)
    return load_result(folder, choose_torch_device("auto"))


@torch.inference_mode()
def _probe_scores(loaded: LoadedModel) -> torch.Tensor:
    device = next(loaded.model.parameters()).device
    tokens = loaded.tokenizer(PROBE, return_tensors="pt")["input_ids"].to(device)
    return loaded.model(input_ids=tokens).logits[0, -1].float().log_softmax(-1).cpu()


def _with_system(messages: Sequence[dict[str, str]], system: str) -> list[dict[str, str]]:
    first = [{"role": "system", "content": system}] if system.strip() else []
    return [*first, *messages]


def main() -> None:
    """Speak the protocol on the real standard output; libraries print to the log instead."""
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(sys.stdin.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
        ChatWorker(protocol).serve(lines)


if __name__ == "__main__":
    main()
