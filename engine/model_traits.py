"""What the loss may rely on in a model: asked of the model itself, on a few tokens, and verified.

Models differ in what they do to the head's scores, in whether they read padding that stands after
the text, and in whether they keep several texts in one row apart. No list of names could tell.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from engine.score_head import AfterHead, Head, head_weight

_Found = TypeVar("_Found")
_TOKENS = 12
# So small that no cap bends it, and so large that any cap is reached.
_SMALL, _LARGE = 2**-10, 1e8
# Rounding of one format; what a mask or a position changes is of the size of the scores themselves.
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_COARSE_TOLERANCE = 4e-2


@dataclass(frozen=True)
class ModelTraits:
    """What is known of one model.

    Attributes:
        after_head: What happens to the head's scores; None if the loss has to take them from the
            model itself.
        needs_mask: Whether padding after the text has to be masked.
    """

    after_head: AfterHead | None
    needs_mask: bool


_known: weakref.WeakKeyDictionary[nn.Module, ModelTraits] = weakref.WeakKeyDictionary()


@torch.no_grad()
def traits_of(model: nn.Module) -> ModelTraits:
    """What the loss may rely on; found out at the first call, with a few forward passes."""
    if model not in _known:
        with in_evaluation(model):
            tokens = _probe_tokens(model)
            plain = _tried(lambda: _scores(model, tokens[:1]))
            after = None if plain is None else _tried(lambda: _after_head(model, tokens[:1], plain))
            needs_mask = not _tried(lambda: _ignores_padding(model, tokens))
        _known[model] = ModelTraits(after, needs_mask)
    return _known[model]


@torch.no_grad()
def keeps_packed_apart(model: nn.Module) -> bool:
    """Whether two texts in one row, each with positions of its own, get the scores they get alone.

    A few tokens are tried: a row of three texts, of which one is alone in a row of its own.
    """
    with in_evaluation(model):
        return bool(_tried(lambda: _packed_as_alone(model, _probe_tokens(model))))


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the mode before afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def hidden_states(model: nn.Module, **inputs: Any) -> Tensor:
    """What goes into the head, (conversations, tokens, hidden size), in the format it has there.

    The whole model runs, but its head gives a single zero for each token.
    """
    hidden, _ = _with_scores(model, torch.zeros(1), **inputs)
    return hidden


def head_of(model: nn.Module, after: AfterHead) -> Head:
    """The head as it is now: a method may have changed its class since it was looked at."""
    module: Any = _head_module(model)
    weight = head_weight(module)
    assert weight is not None, "the head was understood once"
    return Head(weight, module.bias, after)


def _with_scores(model: nn.Module, instead: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Run a model whose head gives `instead`, (scores), at every token: hidden states, scores."""
    head: Any = _head_module(model)
    taken: list[Tensor] = []

    def capture(hidden: Tensor) -> Tensor:
        taken.append(hidden)
        return instead.to(hidden.device).expand(*hidden.shape[:-1], -1).clone()

    own = head.__dict__.get("forward")
    head.forward = capture
    try:
        output: Any = model(**inputs, use_cache=False)
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own
    assert len(taken) == 1, "a model with one head asks it once"
    return taken[0], output.logits


def _head_module(model: Any) -> nn.Module:
    return model.get_output_embeddings()


def _scores(model: Any, tokens: Tensor, **inputs: Any) -> Tensor:
    return model(input_ids=tokens, use_cache=False, **inputs).logits.float()


def _probe_tokens(model: Any) -> Tensor:
    """Two rows of different tokens, (2, `_TOKENS`)."""
    device = next(model.parameters(), torch.zeros(())).device
    table = getattr(model, "get_input_embeddings", lambda: None)()
    count = getattr(table, "num_embeddings", 2 * _TOKENS)
    return (torch.arange(2 * _TOKENS, device=device) * 7 + 3).remainder(count).view(2, _TOKENS)


def _after_head(model: nn.Module, tokens: Tensor, plain: Tensor) -> AfterHead | None:
    """What becomes of scores, if that is a factor and a limit and gives the model's own scores."""
    sizes = torch.tensor([_SMALL, 1.0, 30.0, 1000.0, _LARGE])
    tried = torch.cat([-sizes, torch.zeros(1), sizes])
    hidden, became = _with_scores(model, tried, input_ids=tokens)
    found = became[0, 0].float().cpu()
    scale, largest = float(found[6]) / _SMALL, float(found[-1])
    capped = abs(largest) < 0.5 * abs(scale) * _LARGE
    after = AfterHead(scale, largest if capped else None)
    if head_weight(_head_module(model)) is None or not _close(after.apply(tried), found):
        return None
    head = head_of(model, after)
    scores = torch.cat(
        [head.scores(hidden[0], rows) for rows in head.weight.row_chunks(plain.shape[-1])], dim=1
    )
    return after if _same(scores, plain[0], hidden.dtype) else None


def _ignores_padding(model: nn.Module, tokens: Tensor) -> bool:
    """Whether real tokens get the same scores without a mask; the second row is half padding."""
    mask = torch.ones_like(tokens)
    mask[1, _TOKENS // 2 :] = 0
    masked, bare = _scores(model, tokens, attention_mask=mask), _scores(model, tokens)
    real = mask.bool()
    return _same(bare[real], masked[real], _computed_in(model, tokens))


def _packed_as_alone(model: nn.Module, tokens: Tensor) -> bool:
    """The first row in three pieces is what each piece is alone."""
    first, second = _TOKENS // 3, 2 * _TOKENS // 3 + 1
    pieces = [tokens[:1, start:stop] for start, stop in
              ((0, first), (first, second), (second, _TOKENS))]  # fmt: skip
    positions = torch.cat([torch.arange(piece.shape[1]) for piece in pieces])
    restarted = torch.stack([positions, torch.arange(_TOKENS)]).to(tokens.device)
    packed = _scores(model, tokens, attention_mask=None, position_ids=restarted)
    alone = torch.cat([_scores(model, piece)[0] for piece in pieces])
    other = _scores(model, tokens[1:])[0]
    found, expected = packed.flatten(0, 1), torch.cat([alone, other])
    return _same(found, expected, _computed_in(model, tokens))


def _same(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Equal at every token but for rounding. Both: float32, (tokens, vocabulary)."""
    spread = (expected - expected.mean(dim=-1, keepdim=True)).norm(dim=-1)
    rounding = 1e-6 * expected.norm(dim=-1)
    apart = (found - expected).norm(dim=-1)
    return bool((apart <= _TOLERANCE.get(dtype, _COARSE_TOLERANCE) * spread + rounding).all())


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool(torch.allclose(found, expected, rtol=1e-4, atol=0.0))


def _computed_in(model: nn.Module, tokens: Tensor) -> torch.dtype:
    """The format of activations, as the head's input has it."""
    hidden = _tried(lambda: hidden_states(model, input_ids=tokens))
    return torch.bfloat16 if hidden is None else hidden.dtype


def _tried(work: Callable[[], _Found]) -> _Found | None:
    """None where a model of unknown kind cannot do it."""
    try:
        return work()
    except Exception:  # whatever an architecture raises that was not made for this
        return None
