"""What a person should know of the models of a chat before they answer, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.chat_models import ChatModels
from engine.chat_side import FOUR_BIT, Side, template_notes
from engine.identity_proof import IdentityProof
from engine.target import Target


def notes_on(models: ChatModels, proof: IdentityProof) -> list[str]:
    """What a person should know of these two beside plan and verdict, in sentences."""
    sides = models.sides
    notes: list[str] = []
    if models.plan == "shared" and any(side.parts is None for side in sides.values()):
        notes += _of_form(next(side for side in sides.values() if side.parts is None))
    notes += template_notes(list(sides.values()))
    notes += _of_proof(proof, {name: side.target for name, side in sides.items()})
    return notes


def _of_form(original: Side) -> Iterator[str]:
    """Where an original answers in the form that its adapter was trained beside, not in its own."""
    assert original.loaded is not None
    stored = str(original.loaded.stored_dtype).removeprefix("torch.")
    if original.form == FOUR_BIT:
        yield "The original answers from its weights in 4 bits, as the adapter knew it."
    elif original.form != stored:
        yield f"The original answers in {original.form}, as the adapter knew it, not in {stored}."


def _of_proof(proof: IdentityProof, targets: Mapping[str, Target]) -> Iterator[str]:
    for name, one in proof.sides.items():
        target = targets[name]
        if one.record is None:
            yield f"Of {target.name} there is no record to compare it with."
        elif one.told_apart is False and target.is_tuned and proof.verdict != "unchanged":
            yield (
                f"By its scores on a fixed text {target.name} is hardly told from its original, or "
                "from the other side."
            )
            if proof.verdict == "unclear" and not target.is_adapter:
                yield f"Storing {target.name} may have rounded away what little it learned."
