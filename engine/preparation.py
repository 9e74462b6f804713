"""Everything that stands before the first step: model, data and method, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint import Progress, restore_newest
from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError
from engine.contract.events import EventWriter
from engine.contract.model_source import resolve_model
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.data.batching import Batch, BatchOrder, collate
from engine.data.chat import ChatEncoder, Example
from engine.data.formats import Chat
from engine.data.source import Dataset, describe_refusals, read_dataset
from engine.data.split import split_chats
from engine.inspect_model import shape_of
from engine.memory.devices import choose_device
from engine.memory.estimate import Forecast, estimate
from engine.meter import MEASURED_STEPS, give_back_freed_memory
from engine.methods import METHODS
from engine.methods.protocol import Method
from engine.model import LoadedModel, choose_torch_device, fetch_model, load_model

NUM_PROMPTS = 3


@dataclass
class Prepared:
    """What the loop needs."""

    spec: RunSpec
    device: torch.device
    loaded: LoadedModel
    method: Method
    training: list[Example]
    evaluation: list[Example]
    prompts: list[str]
    progress: Progress
    forecast: Forecast

    def __post_init__(self) -> None:
        train = self.spec.train
        self._order = BatchOrder(len(self.training), train.batch_size, train.seed)
        self._longest = longest(self.training)

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        train = self.spec.train
        if train.steps is not None:
            return train.steps
        assert train.epochs is not None
        return -(-self._order.num_batches(train.epochs) // train.grad_accumulation)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of optimizer step `step`, from 1, on the device.

        The first steps are as wide as any will be: what does not fit fails at once, and their
        measured peak is the run's.
        """
        count = self.spec.train.grad_accumulation
        at_least = self._longest if step <= MEASURED_STEPS else 0
        return [
            collate(
                [self.training[index] for index in self._order.batch(number)],
                self.loaded.pad_token,
                at_least,
            ).to(self.device)
            for number in range((step - 1) * count, step * count)
        ]

    def begins_epoch(self, step: int) -> bool:
        """Whether step `step`, from 1, is the first that begins within a further pass."""
        train = self.spec.train
        per_step = train.batch_size * train.grad_accumulation
        before, now = ((number * per_step) // len(self.training) for number in (step - 2, step - 1))
        return step > 1 and now > before

    def live_tensors(self) -> Iterable[Tensor]:
        """Tensors that live as long as the run."""
        yield from self.loaded.model.parameters()
        yield from self.loaded.model.buffers()
        yield from self.method.state_dict().values()


def prepare(run: RunDir, events: EventWriter) -> Prepared:
    """Load, check, lay out and restore.

    Raises:
        RequestError: Something the spec names cannot be used.
    """
    spec = run.spec()
    events.emit("phase", phase="loading")
    device = choose_torch_device(spec.train.device)
    dataset = unchanged_dataset(spec)
    _tell_refused(dataset, events)
    folder = fetch_model(resolve_model(spec.model.source), spec.model.revision)
    full_precision = spec.method.kind == "full"
    loaded = load_model(folder, torch.float32 if full_precision else None)
    if loaded.template_added:
        events.emit("notice", message="The model has no chat template; a plain one is used.")
    training, evaluation = usable_examples(
        spec, loaded, dataset, lambda message: events.emit("notice", message=message)
    )
    events.emit("phase", phase="preparing")
    shape = shape_of(loaded.model, folder.name)
    forecast = estimate(spec, shape, choose_device(str(device)), longest(training))
    _tell_forecast(forecast, events)
    if spec.train.activation_checkpointing is True:
        model: Any = loaded.model
        model.activation_checkpointing_enable({"use_reentrant": False})
    method = METHODS[spec.method.kind]()
    method.prepare(loaded.model, spec, device)
    loaded.model.train()
    give_back_freed_memory()
    progress = _restore(run, method, events)
    prompts = _prompts(spec, dataset)
    return Prepared(spec, device, loaded, method, training, evaluation, prompts, progress, forecast)


def longest(examples: Iterable[Example]) -> int:
    """Tokens in the longest example."""
    return max(len(example.tokens) for example in examples)


def unchanged_dataset(spec: RunSpec) -> Dataset:
    """The dataset that a spec means.

    Raises:
        RequestError: It cannot be read, or is not what it was when the spec was completed.
    """
    dataset = read_dataset(spec.data)
    if spec.data.sha256 not in (None, dataset.sha256):
        raise RequestError(
            "data.source",
            f"{spec.data.source} has changed since this run was made.",
            "Bring the old file back, or start a new run.",
        )
    return dataset


def _tell_refused(dataset: Dataset, events: EventWriter) -> None:
    if dataset.refused:
        reasons = describe_refusals(dataset.refused)
        events.emit("notice", message=f"{len(dataset.refused)} rows are left out: {reasons}.")


def _tell_forecast(forecast: Forecast, events: EventWriter) -> None:
    events.emit(
        "memory",
        of="forecast",
        terms=dict(forecast.terms),
        total_bytes=forecast.total_bytes,
        low_bytes=forecast.low_bytes,
        high_bytes=forecast.high_bytes,
        tensor_bytes=forecast.tensor_bytes,
        free_bytes=forecast.free_bytes,
    )


def usable_examples(
    spec: RunSpec, loaded: LoadedModel, dataset: Dataset, tell: Callable[[str], None]
) -> tuple[list[Example], list[Example]]:
    """Training and evaluation examples in tokens.

    Args:
        spec: Says how long an example may be and which rows are kept apart.
        loaded: The model, for its tokenizer and its longest sequence.
        dataset: The chats.
        tell: Called with a sentence for whatever is cut or left out.

    Raises:
        RequestError: Nothing is left to train on.
    """
    length = spec.train.sequence_length
    if loaded.max_position is not None and loaded.max_position < length:
        length = loaded.max_position
        tell(f"The model reads at most {length} tokens: longer is cut.")
    encoder = ChatEncoder(loaded.tokenizer, length, spec.data.train_on)
    training, evaluation = (
        _trainable(side, encoder) for side in split_chats(dataset.chats, spec.data.eval_percent)
    )
    if not training:
        raise RequestError(
            "train.sequence_length",
            f"no reply begins within {length} tokens, so there is nothing to learn from.",
            "Raise the sequence length or use shorter conversations.",
        )
    dropped = len(dataset.chats) - len(training) - len(evaluation)
    if dropped:
        tell(f"{dropped} rows are left out: no reply begins in {length} tokens.")
    return training, evaluation


def _trainable(chats: Iterable[Chat], encoder: ChatEncoder) -> list[Example]:
    encoded = (encoder.encode(chat) for chat in chats)
    return [example for example in encoded if any(example.trained[1:])]


def _prompts(spec: RunSpec, dataset: Dataset) -> list[str]:
    """Three fixed questions: the sample's own, or the first of the data."""
    sample = sample_datasets().get(spec.data.source)
    if sample:
        return list(sample.prompts[:NUM_PROMPTS])
    questions = [
        next(turn.content for turn in chat if turn.role == "user") for chat in dataset.chats
    ]
    return list(dict.fromkeys(questions))[:NUM_PROMPTS]


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
