"""The gradients of one batch, one at a time, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.contract.spec import RunSpec
from engine.data.batching import Batch, BatchOrder, collate
from engine.loss import summed_loss
from engine.model import LoadedModel
from engine.preparation import unchanged_dataset, usable_examples
from engine.roles import named_weights


def first_batch(spec: RunSpec, loaded: LoadedModel) -> Batch:
    """The first micro-batch that a run of this spec trains on.

    Raises:
        RequestError: The data cannot be used.
    """
    training, _ = usable_examples(spec, loaded, unchanged_dataset(spec), lambda message: None)
    order = BatchOrder(len(training), spec.train.batch_size, spec.train.seed)
    return collate([training[index] for index in order.batch(0)], loaded.pad_token)


def pass_gradients(
    loaded: LoadedModel, batch: Batch, look: Callable[[str, Tensor], None]
) -> list[str]:
    """Backward of the mean loss; each gradient is handed on as soon as it is whole, and freed.

    Args:
        loaded: The model; it gets hooks and is of no use for training afterwards.
        batch: On the model's device.
        look: Called with a weight's name and its gradient, in the order of backward.

    Returns:
        The weights that have no part in this batch's loss.
    """
    model = loaded.model.requires_grad_(True)
    waiting = {named.name: None for named in named_weights(model)}

    def hand_on(name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        look(name, parameter.grad)
        waiting.pop(name)
        parameter.grad = None

    for named in named_weights(model):
        named.parameter.register_post_accumulate_grad_hook(
            lambda parameter, name=named.name: hand_on(name, parameter)
        )
    (summed_loss(model, batch) / max(1, batch.num_target_tokens)).backward()
    return list(waiting)
