"""What a side is made of, by the files on this computer: a model, or an adapter and its base."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.contract.durable import as_object, read_json
from engine.contract.hub_cache import cached_model
from engine.contract.model_source import (
    ADAPTER_CONFIG,
    ModelReference,
    is_adapter_folder,
    resolve_model,
)
from engine.contract.paths import is_file
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.memory.answering import FOUR_BIT, AnsweringModel, BaseForm

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FOUR_BIT_FORM = "quantization_config.json"


@dataclass(frozen=True)
class MadeOf:
    """Who answers on a side.

    Attributes:
        model: The whole model, or the base of an adapter.
        revision: Its commit on the hub.
        folder: With its files; None until they are downloaded.
        base_form: How an adapter's base is kept; None for a whole model.
        four_bit: Of a base in 4 bits, how exactly.
        adapter_bytes: Of an adapter's matrices.
        is_tuned: Whether its weights are other ones than those of `model`.
    """

    model: ModelReference
    revision: str | None
    folder: Path | None
    base_form: BaseForm | None = None
    four_bit: tuple[str, bool] | None = None
    adapter_bytes: int = 0
    is_tuned: bool = False

    @property
    def memory(self) -> AnsweringModel | None:
        """What it needs in memory; None where its files are not here."""
        if self.folder is None:
            return None
        return AnsweringModel(self.folder, self.base_form, self.adapter_bytes)

    def shares_weights_with(self, other: MadeOf) -> bool:
        """Whether one set of weights answers for both, as the chat worker decides it."""
        if self.base_form is None and other.base_form is None:
            return False
        if not self._is_of_one_model_with(other):
            return False
        if self.base_form is not None and other.base_form is not None:
            return (self.base_form, self.four_bit) == (other.base_form, other.four_bit)
        plain = self if self.base_form is None else other
        return not plain.is_tuned

    def _is_of_one_model_with(self, other: MadeOf) -> bool:
        if self.folder is not None and other.folder is not None:
            return self.folder.resolve() == other.folder.resolve()
        one, two = ((it.model.hub_id, it.revision) for it in (self, other))
        return one[0] is not None and one == two


def made_of_model(source: str, revision: str | None = None) -> MadeOf:
    """A model folder, an adapter's folder, a catalogue name or a hub id.

    Raises:
        RequestError: There is nothing of that name.
    """
    reference = resolve_model(source)
    if reference.folder is not None and is_adapter_folder(reference.folder):
        return _of_adapter(reference.folder)
    return MadeOf(reference, revision, _folder_of(reference, revision))


def made_of_run(run: RunDir, spec: RunSpec, step: int | None) -> MadeOf:
    """A run's result, or one of its checkpoints.

    Raises:
        RequestError: The model that it began with is nowhere.
    """
    method = spec.method
    is_adapter = method.kind in ("lora", "qlora")
    if not is_adapter and step is None:
        return MadeOf(ModelReference("folder", run.name), None, run.export, is_tuned=True)
    base = made_of_model(spec.model.source, spec.model.revision)
    if not is_adapter:
        # It has the sizes of the model that the run began with.
        return replace(base, is_tuned=True)
    four_bit = (method.quant_type, method.double_quant) if method.kind == "qlora" else None
    size = _size(run.export / _ADAPTER_WEIGHTS)
    return _with_adapter(base, four_bit, size)


def _with_adapter(base: MadeOf, four_bit: tuple[str, bool] | None, size: int) -> MadeOf:
    return replace(
        base,
        base_form=FOUR_BIT if four_bit else "bfloat16",
        four_bit=four_bit,
        adapter_bytes=size,
        is_tuned=True,
    )


def _of_adapter(folder: Path) -> MadeOf:
    """An adapter that was made elsewhere, or copied out of a run.

    Raises:
        RequestError: Its base is nowhere.
    """
    document: dict[str, Any] = as_object(read_json(folder / ADAPTER_CONFIG)) or {}
    revision = str(document["revision"]) if document.get("revision") else None
    base = resolve_model(str(document.get("base_model_name_or_path") or ""))
    form, four_bit = as_object(read_json(folder / _FOUR_BIT_FORM)), None
    if form is not None:
        kind, twice = form.get("bnb_4bit_quant_type"), form.get("bnb_4bit_use_double_quant")
        four_bit = (str(kind), twice is True)
    plain = MadeOf(base, revision, _folder_of(base, revision))
    return _with_adapter(plain, four_bit, _size(folder / _ADAPTER_WEIGHTS))


def _folder_of(reference: ModelReference, revision: str | None) -> Path | None:
    if reference.folder is not None or reference.hub_id is None:
        return reference.folder
    return cached_model(reference.hub_id, revision)


def _size(path: Path) -> int:
    return path.stat().st_size if is_file(path) else 0
