"""What lives as long as a run: its tensors, and their bytes by the terms of the forecast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from engine.contract.spec import RunSpec
    from engine.memory.estimate import Term
    from engine.methods.protocol import Method

_ADAPTERS = ("lora", "qlora")


def live_tensors(model: nn.Module, method: Method, spec: RunSpec) -> Iterator[Tensor]:
    """Tensors that live as long as a run: what a meter must know of before it counts."""
    yield from model.parameters()
    yield from model.buffers()
    yield from method.state_dict().values()
    yield from _scales(model, spec)


def state_bytes(model: nn.Module, method: Method, spec: RunSpec) -> dict[Term, int]:
    """Bytes of weights and optimizer state as they are held, by the forecast's terms.

    Every storage counts once. In no term are a model's buffers, and the scalars that stand in its
    layers for weights in codes.
    """
    found: dict[Term, int] = {}
    counted: set[int] = set()
    for term, tensor in _by_term(model, method, spec):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            found[term] = found.get(term, 0) + storage.nbytes()
    return {term: size for term, size in found.items() if size}


def _by_term(model: nn.Module, method: Method, spec: RunSpec) -> Iterator[tuple[Term, Tensor]]:
    for name, tensor in method.state_dict().items():
        yield _term_of(name, spec), tensor
    # The base of an adapter, or tables without a rate. What is trained is in the state.
    frozen = (one for one in model.parameters() if not one.requires_grad)
    for tensor in (*frozen, *_scales(model, spec)):
        yield "weights", tensor


def _term_of(name: str, spec: RunSpec) -> Term:
    """The term of a tensor, by its name in `Method.state_dict` and in its layout's parts."""
    kept, _, part = name.rpartition("/")[2].partition(".")
    if kept != "weight":
        return "moments"
    if spec.method.kind in _ADAPTERS:
        return "adapters"
    if part.startswith("outlier_"):
        return "outliers"
    return "residual" if part == "residual" else "weights"


def _scales(model: nn.Module, spec: RunSpec) -> Iterator[Tensor]:
    """What belongs to weights in 4 bits and is no parameter."""
    if spec.method.kind == "qlora":
        from engine.four_bit import scale_tensors

        yield from scale_tensors(model)
