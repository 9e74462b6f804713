"""A change of settings: what it sets, what the request needs then, and what that costs in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from engine.contract.errors import RequestErrors
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec


class Setting(NamedTuple):
    """One setting of the spec, as `train.batch_size`, with the value it had and the one it gets."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Change:
    """One change, and what the request needs after it.

    Attributes:
        settings: What it sets; the first gives it its name.
        total_bytes: The forecast after this change and those before it.
        high_bytes: Its upper end, which is what has to fit.
        fits: Whether it does.
        slower: A step's time after this change, as a multiple of that before it.
        needs_consent: Whether the training itself becomes another.
        why: One sentence for people.
    """

    settings: tuple[Setting, ...]
    total_bytes: int
    high_bytes: int
    fits: bool
    slower: float
    needs_consent: bool
    why: str

    @property
    def field(self) -> str:
        """The setting that it is called by."""
        return self.settings[0].field

    @property
    def before(self) -> Any:
        """Its value in the request."""
        return self.settings[0].before

    @property
    def after(self) -> Any:
        """Its value now."""
        return self.settings[0].after


def with_changes(spec: RunSpec, changes: Iterable[Change]) -> RunSpec:
    """The spec with all that the changes set."""
    changed = with_settings(spec, *chain.from_iterable(change.settings for change in changes))
    assert changed is not None, "each change was valid when it was found"
    return changed


def with_settings(spec: RunSpec, *settings: Setting) -> RunSpec | None:
    """The spec with other values; None where the method cannot do that."""
    document = spec.as_json()
    for setting in settings:
        group, name = setting.field.split(".")
        document[group][name] = setting.after
    try:
        return validate_spec(document)
    except RequestErrors:
        return None
