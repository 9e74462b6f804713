"""The forecast behind the Setup page: every method for this model, these settings, this device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import MethodSettings
from engine.contract.model_source import ModelReference, check_model_folder, resolve_model
from engine.contract.presets import METHOD_CHOICES, MethodChoice, resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.memory.catalogue import bundled_shape
from engine.memory.devices import Device, choose_device
from engine.memory.estimate import Forecast, estimate
from engine.memory.lost_updates import lost_updates
from engine.memory.model_shape import ModelShape, config_key, read_shape, shape_cache_path
from engine.memory.resolve import resolve_for_device
from qft_gui import engine_commands

T = TypeVar("T")


class DataFacts(BaseModel):
    """What the engine found in a file: usable rows, rows left out, and how they are written."""

    rows: int
    refused: int
    format: str


@dataclass(frozen=True)
class MethodRow:
    """One method for the request of the page.

    Attributes:
        is_changed: The chosen method, with settings that are not its preset's own.
        method: Its settings, complete for the device; None where there is no forecast.
        forecast: None while the model's shape is unknown, and where the method cannot do it.
        refusal: Why this method cannot do what others can.
    """

    choice: MethodChoice
    is_chosen: bool
    is_changed: bool = False
    method: MethodSettings | None = None
    forecast: Forecast | None = None
    refusal: RequestError | None = None


@dataclass(frozen=True)
class Report:
    """What can be said before a run; a forecast by method once the model's shape is known."""

    methods: tuple[MethodRow, ...]
    spec: RunSpec | None = None
    model: ModelReference | None = None
    shape: ModelShape | None = None
    device: Device | None = None
    errors: tuple[RequestError, ...] = ()
    is_reading: bool = False
    data: DataFacts | None = None
    is_reading_data: bool = False
    warning: str = ""

    @property
    def chosen(self) -> Forecast | None:
        """The forecast of the chosen method, if there is one."""
        return next((row.forecast for row in self.methods if row.is_chosen), None)


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


class Forecasts:
    """Turns the settings of the Setup page into a report. Never raises for what a person types."""

    def __init__(self) -> None:
        self._shapes = ShapeReader()
        self._files = FileReader()

    def report(self, document: dict[str, Any]) -> Report:
        """What this request needs, by method, or what is wrong with it.

        Args:
            document: A spec as the form holds it.
        """
        found: list[RequestError] = []
        model = _collect(found, lambda: resolve_model(document["model"]["source"]))
        device = _collect(found, lambda: choose_device(document["train"].get("device", "auto")))
        read = _collect(found, lambda: self._data(document["data"]["source"]))
        data, is_reading_data = read or (None, False)
        shape = _collect(found, lambda: self._shape(model)) if model else None
        wrong: list[RequestError] = []
        spec = _collect(wrong, lambda: validate_spec(document))
        known = Report(
            _rows(document),
            model=model,
            shape=shape,
            device=device,
            errors=(*wrong, *found),
            data=data,
            is_reading_data=is_reading_data,
        )
        if found or model is None or device is None:
            return known
        if spec is not None:
            asked = resolve_presets(spec, model)
            complete = _collect(wrong, lambda: resolve_for_device(asked, shape, device))
            known = replace(known, spec=complete, errors=tuple(wrong))
        if shape is None:
            return replace(known, is_reading=spec is not None and model.kind == "folder")
        warning = lost_updates(known.spec, shape) if known.spec else None
        rows = _forecast_rows(document, model, shape, device)
        return replace(known, methods=rows, warning=warning or "")

    def _data(self, source: str) -> tuple[DataFacts | None, bool]:
        if source in sample_datasets():
            return None, False
        file = Path(source).expanduser()
        if not file.is_file():
            raise RequestError(
                "data.source", "there is no such file.", "Type its whole path, or upload it."
            )
        return self._files.facts(file)

    def _shape(self, model: ModelReference) -> ModelShape | None:
        if model.kind in ("starter", "catalogue"):
            return bundled_shape(model.name)
        if model.folder is None:
            return None
        return self._shapes.shape(model.folder, check_model_folder(model.folder))


def _collect(found: list[RequestError], check: Callable[[], T]) -> T | None:
    """One check; what is wrong joins `found`."""
    try:
        return check()
    except (RequestError, RequestErrors) as error:
        found.extend(mistakes(error))
        return None


def _rows(document: dict[str, Any]) -> tuple[MethodRow, ...]:
    """Every method, with no forecast yet."""
    method: dict[str, Any] = document["method"]
    chosen = MethodChoice(method["kind"], method.get("preset"))
    is_changed = not method.keys() <= {"kind", "preset"}
    return tuple(
        MethodRow(choice, choice == chosen, choice == chosen and is_changed)
        for choice in METHOD_CHOICES
    )


def _forecast_rows(
    document: dict[str, Any], model: ModelReference, shape: ModelShape, device: Device
) -> tuple[MethodRow, ...]:
    """The same request with each method; the chosen one with the settings that it has."""
    rows: list[MethodRow] = []
    for row in _rows(document):
        method = {"kind": row.choice.kind, "preset": row.choice.preset}
        own = {key: value for key, value in method.items() if value is not None}
        try:
            spec = validate_spec(document if row.is_chosen else {**document, "method": own})
            complete = resolve_for_device(resolve_presets(spec, model), shape, device)
        except (RequestError, RequestErrors) as error:
            refusal = mistakes(error)[0]
            # What is wrong with a setting stands at its field; the method could do better.
            is_setting = row.is_chosen and refusal.field.startswith("method.")
            is_setting = is_setting and refusal.field != "method.kind"
            rows.append(row if is_setting else replace(row, refusal=refusal))
        else:
            forecast = estimate(complete, shape, device)
            rows.append(replace(row, method=complete.method, forecast=forecast))
    if any(row.forecast for row in rows):
        return tuple(rows)
    # What no method can do is a mistake of its own field, and none of the methods'.
    return tuple(replace(row, refusal=None) for row in rows)
