"""Changes that the page makes to its own fields, and the way back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.contract.presets import METHOD_PRESETS
from engine.memory.changes import Change
from engine.memory.fit import Fitting
from qft_gui.form import Form, input_names
from qft_gui.prospects import change_key
from qft_gui.spec_fields import settings_of


@dataclass(frozen=True)
class Applied:
    """What was changed to make a request fit.

    Attributes:
        before: The form before the first of the changes.
        after: The form with all of them.
        changes: In the order they were made.
        before_bytes: What the request needed before.
    """

    before: Form
    after: Form
    changes: tuple[Change, ...]
    before_bytes: int

    @property
    def touched(self) -> tuple[str, ...]:
        """The inputs that were changed."""
        return tuple(
            name for name in input_names() if self.before.value(name) != self.after.value(name)
        )

    def standing(self, form: Form) -> tuple[str, ...]:
        """The changed inputs that still hold what they were changed to."""
        return tuple(name for name in self.touched if form.value(name) == self.after.value(name))

    def stands_in(self, form: Form) -> bool:
        """Whether nobody has changed any of it since."""
        return self.standing(form) == self.touched and form.choice == self.after.choice

    def undone(self, form: Form) -> Form:
        """The form as it was; what a person changed meanwhile stays."""
        standing = self.standing(form)
        if form.choice != self.before.choice:
            form = form.with_method(*self.before.choice)
        return form.with_values({name: self.before.value(name) for name in standing})


def applied(
    form: Form, fitting: Fitting | None, key: str | None, earlier: Applied | None
) -> Applied | None:
    """Change the form so that its request fits, or as one way of those that need consent.

    Args:
        form: As it is.
        fitting: What would make its request fit.
        key: The way that was chosen, by its `change_key`; None for all that needs no consent.
        earlier: What was changed before; it is taken back together with this.

    Returns:
        What stands then: `earlier`, if there is nothing to change.
    """
    earlier = earlier if earlier and earlier.stands_in(form) else None
    if fitting is None:
        return earlier
    changes = fitting.changes
    if key is not None:
        # Chosen on top of what needs no consent, with which its numbers were told.
        chosen = [change for change in fitting.further if change_key(change) == key]
        changes = (*changes, *chosen) if chosen else ()
    if not changes:
        return earlier
    before, needed = (
        (earlier.before, earlier.before_bytes) if earlier else (form, fitting.before.total_bytes)
    )
    made = (*earlier.changes, *changes) if earlier else changes
    return Applied(before, with_changes(form, changes), made, needed)


def with_changes(form: Form, changes: Iterable[Change]) -> Form:
    """The form with all that the changes set, as if a person had typed it."""
    for change in changes:
        set_to = {setting.field: setting.after for setting in change.settings}
        preset = set_to.pop("method.preset", None)
        if preset is not None:
            known = METHOD_PRESETS[form.kind]
            # What the change does not set stays: it was found valid, and its need told, with that.
            kept = {one.key: form.value(one.key) for one in settings_of(form.kind)}
            form = form.with_method(form.kind, next(one for one in known if one == preset))
            form = form.with_values(kept)
        form = form.with_values({_place(field, form): value for field, value in set_to.items()})
    return form


def _place(field: str, form: Form) -> str:
    """The input of a setting of the spec."""
    group, _, name = field.partition(".")
    assert group in ("train", "method"), f"no change is made to {field}"
    return f"{form.kind}.{name}" if group == "method" else name
