"""The bytes of all tensors that are alive, counted with no noise."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveTensorMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, with no noise: for CPU.

    Each storage counts once, from the operation that makes it until it is freed.

    Args:
        alive: Tensors that exist before the first operation.
    """

    def __init__(self, alive: Iterable[Tensor]) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._watches: dict[int, weakref.ref[Any]] = {}
        self.live_bytes = 0
        self.peak_bytes = 0
        for tensor in alive:
            self.watch(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.watch(value)
        return result

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor from now on, until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = storage.nbytes()
        if key in self._sizes:
            return
        self._sizes[key] = size
        self._watches[key] = weakref.ref(storage, lambda _: self._freed(key))
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _freed(self, key: int) -> None:
        self._watches.pop(key, None)
        self.live_bytes -= self._sizes.pop(key, 0)
