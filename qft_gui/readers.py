"""Shapes of models that only the engine can read, read in the background."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from engine.contract.errors import RequestError, RequestErrors
from engine.memory.model_shape import ModelShape, config_key, read_shape, shape_cache_path
from qft_gui import engine_commands


class ShapeReader:
    """Asks the engine for the shapes of model folders, in the background, once per config."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, ModelShape | RequestErrors | None] = {}

    def shape(self, folder: Path, config: dict[str, Any]) -> ModelShape | None:
        """The shape, or None while it is being read.

        Raises:
            RequestErrors: The engine cannot use the model.
        """
        known = read_shape(shape_cache_path(config))
        if known is not None:
            return known
        key = f"{folder}:{config_key(config)}"
        with self._lock:
            if key not in self._answers:
                self._answers[key] = None
                threading.Thread(
                    target=self._read, args=(key, folder), name="read-model", daemon=True
                ).start()
            answer = self._answers[key]
        if isinstance(answer, RequestErrors):
            raise answer
        return answer

    def _read(self, key: str, folder: Path) -> None:
        answer: ModelShape | RequestErrors
        try:
            answer = ModelShape.model_validate(engine_commands.inspect(folder))
        except RequestErrors as error:
            answer = error
        except ValueError:
            answer = RequestErrors(
                [RequestError("model.source", "the model's shapes could not be read.")]
            )
        with self._lock:
            self._answers[key] = answer
