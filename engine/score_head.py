"""The loss behind a model's head, without ever holding the scores of all tokens over all words.

The scores are made for some rows of the vocabulary at a time. The forward pass keeps the logarithm
of their exponentials' sum, which adds up over chunks ("Online normalizer calculation for softmax",
Milakov and Gimelshein, 2018, section 3); the backward pass makes each chunk again and has all that
its gradient needs. Cut by rows and not by tokens, the gradient of a row is complete at once: it can
be handed to an update and forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.memory.plans import MemoryPlan


@dataclass(frozen=True)
class AfterHead:
    """What a model does to the head's scores: `cap * tanh(scale * score / cap)`.

    Attributes:
        scale: Factor of every score.
        cap: No score gets larger than this; None for no limit.
    """

    scale: float = 1.0
    cap: float | None = None

    def apply(self, scores: Tensor) -> Tensor:
        """The model's scores. `scores`: float32, any shape; used up."""
        if self.scale != 1.0:
            scores.mul_(self.scale)
        if self.cap is not None:
            scores.div_(self.cap).tanh_().mul_(self.cap)
        return scores

    def backward(self, gradient: Tensor, scores: Tensor | None) -> Tensor:
        """From the gradient of the model's scores to that of the head's.

        Args:
            gradient: Float32; used up.
            scores: The model's scores, of the same shape; only looked at where there is a cap.
        """
        if self.cap is not None:
            assert scores is not None
            gradient.addcmul_(gradient, (scores / self.cap).square_(), value=-1.0)
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


@runtime_checkable
class HeadWeight(Protocol):
    """The weight of a head, (vocabulary, hidden size), some rows at a time."""

    @property
    def anchor(self) -> Tensor:
        """What autograd knows the weight by; it wants a gradient if the weight learns."""
        ...

    @property
    def version(self) -> int:
        """Another number after every change."""
        ...

    def row_chunks(self, most: int) -> list[slice]:
        """All rows, cut into chunks of at most `most` where the weight allows chunks so small."""
        ...

    def product(self, inputs: Tensor, rows: slice) -> Tensor:
        """`inputs` (tokens, hidden size) times some rows: (tokens, rows)."""
        ...

    def input_gradient(self, grad_output: Tensor, rows: slice) -> Tensor:
        """`grad_output` (tokens, rows) times some rows transposed: (tokens, hidden size)."""
        ...

    def hand_on(self, rows: slice, gradient: Tensor) -> None:
        """Take the gradient of some rows, shape (rows, hidden size)."""
        ...

    def refuse_second_use(self, version: int) -> None:
        """A weight that has changed since its forward pass has no gradient left to give.

        Raises:
            RequestError: The weight is not of this version.
        """
        ...

    def anchor_gradient(self) -> Tensor | None:
        """What autograd gets for the anchor, once every row's gradient was taken."""
        ...


class ParameterWeight:
    """The weight of a plain linear layer; autograd gets its gradient as one tensor.

    Args:
        weight: (vocabulary, hidden size).
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._gradient: Tensor | None = None

    @property
    def anchor(self) -> Tensor:
        """The weight itself."""
        return self._weight

    @property
    def version(self) -> int:
        """Autograd's own: it counts changes in place, and refuses a changed tensor itself."""
        return self._weight._version

    def row_chunks(self, most: int) -> list[slice]:
        """No more than one product may take, since the rows may have to be cast for it."""
        count, width = self._weight.shape
        product = MemoryPlan.product_elements(self._weight.device.type) // width
        size = max(1, min(most, product))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def product(self, inputs: Tensor, rows: slice) -> Tensor:
        """In the inputs' format."""
        return functional.linear(inputs, self._weight[rows].to(inputs.dtype))

    def input_gradient(self, grad_output: Tensor, rows: slice) -> Tensor:
        """In the gradient's format."""
        return grad_output @ self._weight[rows].to(grad_output.dtype)

    def hand_on(self, rows: slice, gradient: Tensor) -> None:
        """Into its place in the whole gradient, which has the weight's own format."""
        if self._gradient is None:
            self._gradient = torch.empty_like(self._weight)
        self._gradient[rows] = gradient

    def refuse_second_use(self, version: int) -> None:
        """Autograd did."""
        assert version == self._weight._version

    def anchor_gradient(self) -> Tensor | None:
        """The whole gradient; None if no row came."""
        gradient, self._gradient = self._gradient, None
        return gradient


@dataclass(frozen=True)
class Head:
    """A head and what the model does to its scores.

    Attributes:
        weight: Of the head.
        bias: (vocabulary), if the head has one.
        after: What happens to the scores.
    """

    weight: HeadWeight
    bias: Tensor | None
    after: AfterHead

    def scores(self, hidden: Tensor, rows: slice) -> Tensor:
        """The model's scores of some words, float32, (tokens, rows)."""
        scores = self.weight.product(hidden, rows).float()
        if self.bias is not None:
            scores += self.bias[rows].float()
        return self.after.apply(scores)


def head_weight(module: nn.Module) -> HeadWeight | None:
    """The weight of an output head by rows; None for a layer of unknown kind."""
    source = getattr(module, "source", None)
    if isinstance(source, HeadWeight):  # a layer whose weight is stored gives its rows itself
        return source
    if type(module).forward is nn.Linear.forward:
        return ParameterWeight(module.weight)  # pyright: ignore[reportArgumentType]
    return None


def summed_nats(head: Head, hidden: Tensor, targets: Tensor, places: Tensor) -> Tensor:
    """Cross-entropy, summed over target tokens: a float32 scalar.

    Args:
        head: Whose scores.
        hidden: (positions, hidden size): what goes into the head, at every position.
        targets: (tokens) int64: the words that are right.
        places: (tokens) int64: at which position each of them is predicted; all different.
    """
    return _SummedNats.apply(hidden, head.weight.anchor, head.bias, head, targets, places)


class _SummedNats(torch.autograd.Function):
    """Sum of `logsumexp(scores) - score of the target`, over chunks of the vocabulary.

    Where all scores are few, their exponentials are kept, and no score is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        anchor: Tensor,
        bias: Tensor | None,
        head: Head,
        targets: Tensor,
        places: Tensor,
    ) -> Tensor:
        del bias  # the head's own
        most = MemoryPlan.score_elements(hidden.device.type) // max(1, len(targets))
        ctx.head, ctx.version, ctx.chunks = head, head.weight.version, head.weight.row_chunks(most)
        ctx.dtype = _compute_dtype(hidden)
        all_fit = ctx.chunks[-1].stop <= most
        keeps = any(ctx.needs_input_grad) and head.after.cap is None and all_fit
        taken = hidden[places].to(ctx.dtype)
        of_target = torch.zeros(len(targets), device=hidden.device)
        ctx.maxima, ctx.kept, logs = [], [], []
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in ctx.chunks:
                scores = head.scores(taken, rows)
                local, inside = _within(targets, rows)
                of_target += scores.gather(1, local).squeeze(1).masked_fill_(~inside, 0.0)
                largest = scores.amax(dim=1)
                exponentials = scores.sub_(largest.unsqueeze(1)).exp_()
                logs.append(exponentials.sum(dim=1).log_().add_(largest))
                if keeps:
                    ctx.maxima.append(largest)
                    ctx.kept.append(exponentials)
                del scores, exponentials  # before the next chunk is made
        total = torch.stack(logs).logsumexp(dim=0)
        ctx.save_for_backward(hidden, anchor, targets, places, total)
        return (total - of_target).sum()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, _, targets, places, total = ctx.saved_tensors
        head: Head = ctx.head
        head.weight.refuse_second_use(ctx.version)
        of_hidden, of_weight, of_bias, *_ = ctx.needs_input_grad
        taken = hidden[places].to(ctx.dtype)
        passed: Tensor | None = None
        grad_bias = torch.empty_like(head.bias) if of_bias and head.bias is not None else None
        kept, ctx.kept = ctx.kept, []  # used up; a second backward pass would compute anew
        with torch.autocast(hidden.device.type, enabled=False):
            for number, rows in enumerate(ctx.chunks):
                known = (kept.pop(0), ctx.maxima[number]) if kept else None
                softmax, scores = _softmax(head, taken, rows, total, known)
                del known
                gradient = _minus_one_at(targets, rows, softmax).mul_(grad_outputs[0])
                gradient = head.after.backward(gradient, scores)
                del softmax, scores
                if grad_bias is not None:
                    grad_bias[rows] = gradient.sum(dim=0)
                gradient = gradient.to(ctx.dtype)
                if of_hidden:
                    # With the weight of the forward pass, so before the update.
                    share = head.weight.input_gradient(gradient, rows)
                    # A sum of many is kept in float32, as one product would keep it.
                    passed = share if passed is None else passed.float().add_(share)
                if of_weight:
                    head.weight.hand_on(rows, gradient.T @ taken)
                del gradient  # before the next chunk is made
        grad_anchor = head.weight.anchor_gradient() if of_weight else None
        return _placed(passed, places, hidden), grad_anchor, grad_bias, None, None, None


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The format that a linear layer would multiply these hidden states in."""
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _softmax(
    head: Head, taken: Tensor, rows: slice, total: Tensor, known: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor | None]:
    """Of some words, (tokens, rows), and with it the scores if a cap needs them.

    Args:
        head: Whose.
        taken: (tokens, hidden size).
        rows: The words.
        total: (tokens): logsumexp over all words.
        known: Exponentials of the scores minus their largest, and that; used up.
    """
    if known is not None:
        exponentials, largest = known
        return exponentials.mul_((largest - total).exp_().unsqueeze(1)), None
    scores = head.scores(taken, rows)
    if head.after.cap is None:
        return scores.sub_(total.unsqueeze(1)).exp_(), None
    return (scores - total.unsqueeze(1)).exp_(), scores


def _within(targets: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Each target's column in a chunk, (tokens, 1), and whether it lies in it, (tokens)."""
    count = rows.stop - rows.start
    local = targets - rows.start
    return local.clamp(0, count - 1).unsqueeze(1), (local >= 0) & (local < count)


def _minus_one_at(targets: Tensor, rows: slice, softmax: Tensor) -> Tensor:
    """The gradient of the scores: softmax, less one at each target; in place."""
    local, inside = _within(targets, rows)
    return softmax.scatter_add_(1, local, -inside.to(softmax.dtype).unsqueeze(1))


def _placed(passed: Tensor | None, places: Tensor, hidden: Tensor) -> Tensor | None:
    """The gradient of all positions, zero where nothing is predicted."""
    if passed is None:
        return None
    gradient = torch.zeros_like(hidden)
    gradient[places] = passed.to(hidden.dtype)
    return gradient
