"""Tensors without data whose operations are worked out once for each set of shapes, then repeated.

PyTorch's own fake tensors say what each operation of a CPU would give. To find out takes a fraction
of a millisecond; blocks of a model that are alike, and passes that are gone through again, ask for
the same thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_iter

from engine.tensor_meter import LiveTensorMeter

_CPU = torch.device("cpu")
_DEVICE_OF = torch.ops.prim.device.default
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
_NOT_REPEATED = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}


class _Result(NamedTuple):
    """A tensor that an operation gives.

    Attributes:
        shape: Its shape.
        stride: In elements.
        offset: Of its first element in its storage.
        dtype: Of its elements.
        source: Which of the operation's tensors shares its storage with it; None: it has its own.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    source: int | None


class _Known(NamedTuple):
    """What an operation gives; `container` is `tuple`, `list`, or None for a single tensor."""

    results: tuple[_Result | None, ...]
    container: type | None


class FakeTensors(FakeTensorMode):
    """PyTorch's mode of fake tensors, with a memory of results and room for a meter.

    Attributes:
        meter: Is told of every tensor that an operation makes, if it is set.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meter: LiveTensorMeter | None = None
        self._known: dict[Any, _Known] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What the operation gives, from memory where it can be."""
        if func is _DEVICE_OF:
            return args[0].fake_device
        kwargs = kwargs or {}
        tensors: list[FakeTensor] = []
        key = _key_of(func, args, kwargs, tensors)
        known = None if key is None else self._known.get(key)
        if known is not None:
            result = self._again(known, tensors)
        else:
            meter, self.meter = self.meter, None  # what it takes to find out is no result
            try:
                result = super().__torch_dispatch__(func, types, args, kwargs)
            finally:
                self.meter = meter
            known = None if key is None else _described(result, tensors)
            if known is not None:
                self._known[key] = known
        if self.meter is not None:
            for value in (result,) if isinstance(result, Tensor) else tree_iter(result):
                if isinstance(value, Tensor):
                    self.meter.watch(value)
        return result

    def _again(self, known: _Known, tensors: Sequence[FakeTensor]) -> Any:
        made = [one and self._made(one, tensors) for one in known.results]
        return made[0] if known.container is None else known.container(made)

    def _made(self, one: _Result, tensors: Sequence[FakeTensor]) -> FakeTensor:
        if one.source is None:
            empty = torch.empty_strided(one.shape, one.stride, dtype=one.dtype, device="meta")
        else:
            storage = tensors[one.source].untyped_storage()
            empty = torch.empty(0, dtype=one.dtype, device="meta")
            empty.set_(storage, one.offset, one.shape, one.stride)  # pyright: ignore
        return FakeTensor(self, empty, _CPU)


def _key_of(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: list[FakeTensor]
) -> Any:
    """What decides the result; None where the result is not to be repeated.

    Args:
        func: The operation.
        args: Of the operation.
        kwargs: Of the operation.
        tensors: Gets the tensors among them, in order.
    """
    if not _is_repeatable(func):
        return None
    parts: list[Any] = [func]
    whole = _add_parts(parts, args, tensors)
    for name in sorted(kwargs):
        parts.append(name)
        whole = whole and _add_parts(parts, (kwargs[name],), tensors)
    return tuple(parts) if whole and tensors else None


_repeatable: dict[Any, bool] = {}


def _is_repeatable(func: Any) -> bool:
    """Whether an operation only makes or views tensors, whatever their data."""
    found = _repeatable.get(func)
    if found is None:
        found = _repeatable[func] = (
            isinstance(func, torch._ops.OpOverload)
            and func.namespace == "aten"
            and not func._schema.is_mutable
            and not _NOT_REPEATED.intersection(func.tags)
        )
    return found


def _add_parts(parts: list[Any], values: Iterable[Any], tensors: list[FakeTensor]) -> bool:
    """Add what of these values decides a result; False if one of them is of an unknown kind."""
    for value in values:
        if isinstance(value, FakeTensor):
            ordinary = value.layout is torch.strided and value.fake_device == _CPU
            if value.constant is not None or not ordinary:
                return False
            tensors.append(value)
            parts += (value.shape, value.stride(), value.storage_offset(), value.dtype)
        elif isinstance(value, (list, tuple)):
            parts += (type(value), len(value))
            if not _add_parts(parts, value, tensors):
                return False
        elif value is None or isinstance(value, _PLAIN):
            parts += (type(value), value)
        else:
            return False
    return True


def _described(result: Any, tensors: Sequence[FakeTensor]) -> _Known | None:
    """How to make this result again; None where it is out of the ordinary."""
    container = None if isinstance(result, Tensor) else type(result)
    if container not in (None, tuple, list):
        return None
    storages = {one.untyped_storage()._cdata: number for number, one in enumerate(tensors)}
    found: list[_Result | None] = []
    for one in (result,) if container is None else result:
        described = _described_one(one, storages)
        if one is not None and described is None:
            return None
        found.append(described)
    return _Known(tuple(found), container)


def _described_one(one: Any, storages: dict[int, int]) -> _Result | None:
    if type(one) is not FakeTensor or one.constant is not None or one.fake_device != _CPU:
        return None
    if one.layout is not torch.strided or one.is_conj() or one.is_neg():
        return None
    storage = one.untyped_storage()
    source = storages.get(storage._cdata)
    if source is None:
        own = 1 + sum((n - 1) * step for n, step in zip(one.shape, one.stride(), strict=True))
        own = own if one.numel() else 0
        if one.storage_offset() or storage.nbytes() != own * one.element_size():
            return None
        storages[storage._cdata] = -1  # a second result in the same storage
    elif source < 0:
        return None
    return _Result(one.shape, one.stride(), int(one.storage_offset()), one.dtype, source)
