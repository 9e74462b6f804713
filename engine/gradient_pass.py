"""The gradients of one batch, one at a time, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from engine.contract.spec import RunSpec
from engine.data.batching import Batch
from engine.loss import summed_loss
from engine.model import LoadedModel
from engine.preparation import tokenized, training_batches
from engine.roles import named_weights


def first_batch(spec: RunSpec, loaded: LoadedModel) -> Batch:
    """The first micro-batch that a run of this spec trains on.

    Raises:
        RequestError: The data cannot be used.
    """
    return training_batches(spec, loaded, tokenized(spec, loaded).training).batch(0)


def pass_gradients(
    loaded: LoadedModel, batch: Batch, look: Callable[[str, Tensor], None]
) -> list[str]:
    """Backward of the mean loss; each gradient is handed on as soon as it is whole, and freed.

    Frozen weights have none.

    Args:
        loaded: The model; it gets hooks and is of no use for training afterwards.
        batch: On the model's device.
        look: Called with a weight's name and its gradient, in the order of backward.

    Returns:
        The weights that have no part in this batch's loss.
    """
    model = loaded.model
    trained = [named for named in named_weights(model) if named.parameter.requires_grad]
    waiting = {named.name: None for named in trained}

    def hand_on(name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        look(name, parameter.grad)
        waiting.pop(name)
        parameter.grad = None

    for named in trained:
        named.parameter.register_post_accumulate_grad_hook(
            lambda parameter, name=named.name: hand_on(name, parameter)
        )
    (summed_loss(model, batch) / max(1, batch.num_target_tokens)).backward()
    return list(waiting)
