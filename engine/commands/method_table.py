"""`estimate --all-methods`: the same request with every method and preset, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.commands.fitting import fit_document, shortest_way
from engine.commands.output import duration
from engine.commands.prospect import Prospect, prospect_of, shape_of
from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.method_settings import MethodKind, QftPreset
from engine.contract.presets import METHOD_CHOICES, MethodChoice
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.dataset import Dataset
from engine.memory.devices import Device
from engine.memory.estimate import Forecast
from engine.memory.fit import Fitting, fit
from engine.memory.quality import Quality, measured_parameters, quality_of
from engine.memory.units import gib

ADAPTERS: frozenset[MethodKind] = frozenset({"lora", "qlora"})
VERDICTS = {"fits": "Fits", "tight": "Tight", "too_large": "Does not fit", "unknown": "Unknown"}
_HEADINGS = ("method", "memory", "band", "a step", "whole run", "trains", "learns")


@dataclass
class MethodTable:
    """One row for each choice that can do the request; of the others, why not."""

    rows: dict[MethodChoice, Prospect] = field(default_factory=dict[MethodChoice, Prospect])
    refused: dict[MethodChoice, tuple[RequestError, ...]] = field(
        default_factory=dict[MethodChoice, tuple[RequestError, ...]]
    )

    @classmethod
    def of(cls, spec: RunSpec, device: Device) -> MethodTable:
        """Every choice, each with its preset's own settings."""
        try:
            shape = shape_of(spec)
        except (RequestError, RequestErrors) as error:
            return cls(refused=dict.fromkeys(METHOD_CHOICES, mistakes(error)))
        table = cls()
        for choice in METHOD_CHOICES:
            try:
                table.rows[choice] = prospect_of(_with_method(spec, *choice), device, shape)
            except (RequestError, RequestErrors) as error:
                table.refused[choice] = mistakes(error)
        return table

    @property
    def wrong(self) -> tuple[RequestError, ...]:
        """What no method can do is wrong with the request itself."""
        return () if self.rows else next(iter(self.refused.values()))

    def document(self, entry: Callable[[Prospect], dict[str, Any]]) -> dict[str, Any]:
        """The whole table for programs.

        Args:
            entry: What is said of every prospect alike.
        """
        return {
            "methods": [
                {**_name_document(choice), **entry(one), **_document(choice, one)}
                for choice, one in self.rows.items()
            ],
            "refused": [
                {**_name_document(choice), "errors": [one.as_json() for one in errors]}
                for choice, errors in self.refused.items()
            ],
        }

    def lines(self, dataset: Dataset) -> list[str]:
        """The whole table for people, with its headings and what they rest on."""
        cells = [
            (*_cells(choice, self.rows[choice], dataset), _verdict(self.rows[choice]))
            if choice in self.rows
            else (_words(choice), "-", *[""] * (len(_HEADINGS) - 2), _refusal(self.refused[choice]))
            for choice in METHOD_CHOICES
        ]
        unknown = any(one.step is None for one in self.rows.values())
        return [*_aligned([(*_HEADINGS, "fits"), *cells]), *_footnotes(unknown)]


def _with_method(spec: RunSpec, kind: MethodKind, preset: QftPreset | None) -> RunSpec:
    """The same request for another method, with nothing but its preset's own settings.

    Raises:
        RequestErrors: The method cannot do what is asked.
    """
    method = {"kind": kind} if preset is None else {"kind": kind, "preset": preset}
    return validate_spec({**spec.as_json(), "method": method})


def _name_document(choice: MethodChoice) -> dict[str, Any]:
    return {"kind": choice.kind, "preset": choice.preset}


def _document(choice: MethodChoice, prospect: Prospect) -> dict[str, Any]:
    quality, fitting = quality_of(choice), _fitting(prospect)
    return {
        "trains": "an adapter" if choice.kind in ADAPTERS else "every weight",
        "quality": None if quality is None else quality.as_json(),
        "fit": None if fitting is None else fit_document(fitting),
    }


def _fitting(prospect: Prospect) -> Fitting | None:
    """What would make it fit; None where it does."""
    if prospect.forecast.verdict == "fits":
        return None
    return fit(prospect.spec, prospect.shape, prospect.device)


def _verdict(prospect: Prospect) -> str:
    word, fitting = VERDICTS[prospect.forecast.verdict], _fitting(prospect)
    return f"{word}." if fitting is None else f"{word}. {shortest_way(fitting)}"


def _refusal(errors: Sequence[RequestError]) -> str:
    return f"Cannot do this. {' '.join(f'{one.field}: {one.message}' for one in errors)}"


def _cells(choice: MethodChoice, prospect: Prospect, dataset: Dataset) -> tuple[str, ...]:
    step, total = prospect.step, prospect.total(dataset.usable)
    return (
        _words(choice),
        gib(prospect.forecast.total_bytes),
        band_of(prospect.forecast),
        duration(step.seconds) if step else "?",
        duration(total.seconds) if total else "?",
        "an adapter" if choice.kind in ADAPTERS else "every weight",
        _learns(quality_of(choice)),
    )


def _words(choice: MethodChoice) -> str:
    return " ".join(filter(None, choice))


def _learns(quality: Quality | None) -> str:
    return "not measured" if quality is None else quality.words


def band_of(forecast: Forecast) -> str:
    """Within which the peak is expected, for people."""
    return f"{gib(forecast.low_bytes)} to {gib(forecast.high_bytes)}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns as wide as their widest cell; the last is as long as it is."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def _footnotes(times_are_unknown: bool) -> list[str]:
    notes = [
        "learns: share of full AdamW's fall in held-out loss after as many steps, measured on the "
        f"starter, {measured_parameters():,} weights."
    ]
    if times_are_unknown:
        notes.append("?: not known before `python -m engine measure` has run on that device.")
    return notes
