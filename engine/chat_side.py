"""One side of a chat: what it is made of, how large it is, and whether two can share weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.memory.answering import FOUR_BIT, AnsweringModel, BaseForm
from engine.model import LoadedModel
from engine.result import adapter_of, model_folder
from engine.target import Target
from engine.weight_files import hash_of_files

if TYPE_CHECKING:
    from engine.adapter_parts import AdapterParts


@dataclass(frozen=True)
class Hashes:
    """Of the weight files of one side: its own, and those of the model under an adapter."""

    own: str
    base: str | None


@dataclass
class Side:
    """One of those who answer.

    Attributes:
        target: What it is.
        parts: Its adapter, where it is one.
        memory: What it needs there, from the headers of its files.
        form: How its weights are kept: `4-bit`, or a format's name.
        adapter: Which adapter it answers with, where several sides share weights.
        loaded: None while another side has the memory.
        tokenizer: As `context`, the tokens that it reads, known as long as it can be asked.
        context: None for no limit.
        template_added: Its model came without a chat template and is asked in a plain one.
        scores: On the probe, when it was loaded.
        hashes: Of its files, when it was loaded.
    """

    target: Target
    parts: AdapterParts | None
    memory: AnsweringModel
    form: str = ""
    adapter: str | None = None
    loaded: LoadedModel | None = None
    tokenizer: Any = None
    context: int | None = None
    template_added: bool = False
    scores: torch.Tensor | None = None
    hashes: Hashes | None = None

    @classmethod
    def of(cls, target: Target) -> Side:
        """A side that is not loaded yet.

        Raises:
            RequestError: Its files cannot be had, or are damaged.
        """
        parts = adapter_of(target)
        if parts is None:
            return cls(target, None, AnsweringModel(model_folder(target)))
        memory = AnsweringModel(parts.base_folder(), form_of(parts), parts.num_bytes)
        return cls(target, parts, memory)

    @property
    def num_bytes(self) -> int:
        """Of its weights in memory."""
        return self.memory.weights_bytes

    def keep(self, loaded: LoadedModel) -> None:
        """Take the model that answers for this side."""
        self.loaded, self.tokenizer = loaded, loaded.tokenizer
        self.context, self.template_added = loaded.max_position, loaded.template_added
        self.form = form_of(self.parts) if self.parts else _format_of(loaded)

    def files_now(self) -> Hashes:
        """What its files are known by.

        Raises:
            RequestError: One is gone, or damaged.
        """
        target = self.target
        folder = model_folder(target) if target.kind == "model" else target.folder
        assert folder is not None
        base = hash_of_files(self.parts.base_folder()) if self.parts else None
        return Hashes(hash_of_files(folder), base)


def form_of(parts: AdapterParts) -> BaseForm:
    """How the base under an adapter is kept."""
    return FOUR_BIT if parts.form is not None else "bfloat16"


def _format_of(loaded: LoadedModel) -> str:
    return str(loaded.stored_dtype).removeprefix("torch.")


def template_notes(sides: Sequence[Side]) -> list[str]:
    """What a person should know of the templates in which loaded sides are asked, in sentences."""
    notes = [
        f"{side.target.name} has no chat template of its own and is asked in a plain one."
        for side in sides
        if side.template_added
    ]
    if len({str(side.tokenizer.chat_template) for side in sides}) > 1:
        notes.append("The two are asked in different chat templates, each in its own.")
    return notes


def have_one_base(one: Side, other: Side) -> bool:
    """Whether one set of weights can answer for both: with an adapter, and without or another."""
    first, second = one.parts, other.parts
    if first is not None and second is not None:
        return first.form == second.form and first.base_folder() == second.base_folder()
    parts, plain = (first, other) if first is not None else (second, one)
    if parts is None or plain.target.kind != "model":
        return False
    return parts.base_folder().resolve() == model_folder(plain.target).resolve()
