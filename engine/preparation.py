"""Everything that stands before the first step: model, data and method, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from engine.checkpoint import Progress, restore_newest
from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError
from engine.contract.events import EventKind, EventWriter
from engine.contract.model_source import resolve_model
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.data.chat import Example
from engine.data.check import sentences_about
from engine.data.dataset import Dataset
from engine.data.token_store import StoredExamples
from engine.data.tokenized import TokenizedData, tokenize_data
from engine.data.training_batches import TrainingBatches
from engine.expectation import Expectation, expect
from engine.fingerprint import Fingerprint, fingerprint_of, record_base
from engine.freed_memory import give_back_freed_memory
from engine.live_tensors import live_tensors
from engine.memory.devices import choose_device
from engine.memory.estimate import Forecast
from engine.meter import MEASURED_STEPS
from engine.methods import METHODS
from engine.methods.protocol import Method
from engine.model import LoadedModel, choose_torch_device, fetch_model, load_model
from engine.model_switches import recompute_activations
from engine.model_traits import keeps_packed_apart, traits_of
from engine.shapes import find_shape

NUM_PROMPTS = 3
# Measuring must not take longer than learning: of more held-out examples the first are measured.
MOST_EVALUATED = 512


@dataclass
class Prepared:
    """What the loop needs."""

    spec: RunSpec
    device: torch.device
    loaded: LoadedModel
    method: Method
    training: Sequence[Example]
    order: TrainingBatches
    evaluation: Sequence[Example]
    prompts: list[str]
    progress: Progress
    expected: Expectation
    num_rows: int

    @property
    def forecast(self) -> Forecast:
        """The forecast that people are told."""
        return self.expected.forecast

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        train = self.spec.train
        if train.steps is not None:
            return train.steps
        assert train.epochs is not None
        return self.order.num_steps(train.epochs)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of optimizer step `step`, from 1, on the device.

        The first steps are as wide as any will be: what does not fit fails at once, and their
        measured peak is the run's.
        """
        at_least = self.order.widest if step <= MEASURED_STEPS else 0
        return [batch.to(self.device) for batch in self.order.of_step(step, at_least)]

    def begins_epoch(self, step: int) -> bool:
        """Whether step `step`, from 1, is the first that begins within a further pass."""
        return self.order.begins_pass(step)

    def live_tensors(self) -> Iterable[Tensor]:
        """Tensors that live as long as the run."""
        return live_tensors(self.loaded.model, self.method, self.spec)


class Listener(Protocol):
    """Who is told what happens: an event log, or nobody."""

    def emit(self, kind: EventKind, **fields: Any) -> None:
        """Take one event."""
        ...


def prepare(run: RunDir, events: EventWriter) -> Prepared:
    """Load, check, lay out and restore.

    Raises:
        RequestError: Something the spec names cannot be used.
    """
    of_base: list[Fingerprint] = []

    def note(loaded: LoadedModel) -> None:
        if run.fingerprint is None:
            of_base.append(fingerprint_of(loaded, loaded.folder))

    prepared = prepare_new(run.spec(), events, note)
    if of_base:
        _record(run, prepared, of_base[0])
    prepared.progress = _restore(run, prepared.method, events)
    return prepared


def _record(run: RunDir, prepared: Prepared, of_base: Fingerprint) -> None:
    """Before anything is restored: an adapter that is new adds nothing to its base."""
    as_trained = None
    if prepared.spec.method.kind in ("lora", "qlora"):
        as_trained = fingerprint_of(prepared.loaded, prepared.loaded.folder)
    record_base(run, of_base, as_trained)


def _do_nothing(loaded: LoadedModel) -> None:
    del loaded


def prepare_new(
    spec: RunSpec, events: Listener, on_loaded: Callable[[LoadedModel], None] = _do_nothing
) -> Prepared:
    """Load, check and lay out; needs no run folder.

    Args:
        spec: A complete spec.
        events: Who is told what happens.
        on_loaded: Called with the model as its files hold it.

    Raises:
        RequestError: Something the spec names cannot be used.
    """
    events.emit("phase", phase="loading")
    device = choose_torch_device(spec.train.device)
    reference = resolve_model(spec.model.source)
    loaded = load_model(fetch_model(reference, spec.model.revision))
    on_loaded(loaded)
    if loaded.template_added:
        events.emit("notice", message="The model has no chat template; a plain one is used.")
    data = tokenized(spec, loaded)
    for sentence in (*_cut_sentence(spec, loaded), *sentences_about(data)):
        events.emit("notice", message=sentence)
    order = training_batches(spec, loaded, data.training)
    events.emit("phase", phase="preparing", rows=len(data.store))
    shape = find_shape(reference, spec.model.revision)
    expected = expect(spec, shape, choose_device(str(device)), order.widest)
    events.emit("memory", of="forecast", **expected.fields())
    method = _laid_out(spec, loaded, device, events)
    prompts = _prompts(spec, data.dataset)
    evaluation = StoredExamples(data.store, data.evaluation.numbers[:MOST_EVALUATED])
    return Prepared(
        *(spec, device, loaded, method, data.training, order, evaluation, prompts),
        Progress(),
        expected,
        len(data.store),
    )


def _laid_out(spec: RunSpec, loaded: LoadedModel, device: torch.device, events: Listener) -> Method:
    """The method with the model's weights in its own layout, on the device."""
    if spec.train.activation_checkpointing is True:
        recompute_activations(loaded.model)
    method = METHODS[spec.method.kind]()
    for message in method.prepare(loaded.model, spec, device) or ():
        events.emit("notice", message=message)
    loaded.model.train()
    _look_at(loaded.model, spec)
    give_back_freed_memory()
    return method


def training_batches(
    spec: RunSpec, loaded: LoadedModel, training: Sequence[Example]
) -> TrainingBatches:
    """The batches of a run, from examples that were cut to what the model reads."""
    return TrainingBatches(training, spec.train, loaded.pad_token, _most_tokens(spec, loaded))


def _most_tokens(spec: RunSpec, loaded: LoadedModel) -> int:
    """Tokens that a row may have: what the spec allows, or the model if that is less."""
    return min(spec.train.sequence_length, loaded.max_position or spec.train.sequence_length)


def _look_at(model: nn.Module, spec: RunSpec) -> None:
    """Find out what the loss may rely on, before the first step is timed and measured.

    Raises:
        RequestError: The model would read packed chats as a single one.
    """
    traits_of(model)
    if spec.train.batching == "packed" and not keeps_packed_apart(model):
        raise RequestError(
            "train.batching",
            "this model would read the chats in one row as a single chat.",
            "Use grouped.",
        )


def tokenized(spec: RunSpec, loaded: LoadedModel) -> TokenizedData:
    """The data of a run, cut to what the model reads.

    Raises:
        RequestError: It cannot be read, is not what it was when the spec was completed, or holds
            nothing to learn.
    """
    return tokenize_data(spec.data, loaded.tokenizer, _most_tokens(spec, loaded))


def _cut_sentence(spec: RunSpec, loaded: LoadedModel) -> Iterator[str]:
    length = _most_tokens(spec, loaded)
    if length < spec.train.sequence_length:
        yield f"The model reads at most {length} tokens: longer is cut."


def _prompts(spec: RunSpec, dataset: Dataset) -> list[str]:
    """Three fixed questions: the sample's own, or the first of the data."""
    sample = sample_datasets().get(spec.data.source)
    return list(sample.prompts if sample else dataset.prompts)[:NUM_PROMPTS]


def _restore(run: RunDir, method: Method, events: EventWriter) -> Progress:
    def tell(name: str, problem: str) -> None:
        events.emit("notice", message=f"The checkpoint {name} is set aside: {problem}.")

    found = restore_newest(run, tell)
    progress = Progress()
    if found is not None:
        own = method.state_dict()
        assert own.keys() == found.state.keys(), "the checkpoint belongs to another model"
        for name, tensor in own.items():
            tensor.copy_(found.state[name])
        progress = found.progress
    events.emit("phase", phase="preparing", resumed_at=progress.step)
    return progress
