"""What only the engine can read, read in the background: shapes of models, and files of chats."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.contract.errors import RequestError, RequestErrors
from engine.memory.model_shape import ModelShape, config_key, read_shape, shape_cache_path
from qft_gui import engine_commands


class DataFacts(BaseModel):
    """What the engine found in a file: usable rows, rows left out, and how they are written."""

    rows: int
    refused: int
    format: str


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


class FileReader:
    """Asks the engine what is in files of chats, in the background, once per state of a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[str, DataFacts | RequestErrors | None] = {}
        self._reading: set[str] = set()

    def facts(self, file: Path) -> tuple[DataFacts | None, bool]:
        """What the file holds, None while that is unknown; and whether it is being read.

        Raises:
            RequestErrors: The engine cannot use the file.
        """
        try:
            state = file.stat()
        except OSError:
            return None, False
        key = f"{file}:{state.st_size}:{state.st_mtime_ns}"
        with self._lock:
            if key not in self._answers:
                self._answers[key] = None
                self._reading.add(key)
                threading.Thread(
                    target=self._read, args=(key, file), name="read-data", daemon=True
                ).start()
            answer, is_reading = self._answers[key], key in self._reading
        if isinstance(answer, RequestErrors):
            raise answer
        return answer, is_reading

    def _read(self, key: str, file: Path) -> None:
        document = {"model": {"source": "starter"}, "data": {"source": str(file)}}
        answer: DataFacts | RequestErrors | None = None
        try:
            found = engine_commands.estimate({**document, "method": {"kind": "qft"}})
            answer = DataFacts.model_validate(found.get("data"))
        except RequestErrors as error:
            # Only the file is asked about; what else may be in the way is found elsewhere.
            of_file = [one for one in error.errors if one.field.startswith("data")]
            answer = RequestErrors(of_file) if of_file else None
        except ValueError:
            pass  # an engine that does not tell: the run will
        finally:
            with self._lock:
                self._answers[key] = answer
                self._reading.discard(key)
