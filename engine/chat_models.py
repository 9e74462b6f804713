"""The models of a chat: one set of weights for both sides, or two, or one after the other.

An adapter beside its base, and two adapters beside one base, need the base once: which side answers
is switched in each layer. Two models that are not so related stay in memory together if they fit,
and take turns if they do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from engine.chat_side import Side, have_one_base
from engine.contract.device_lock import DeviceClaim, Purpose, claim_device
from engine.contract.errors import RequestError
from engine.fingerprint import TOLERANCE, probe_scores, recorded_base
from engine.freed_memory import give_back_freed_memory, returning_large_blocks
from engine.identity_proof import IdentityProof, Probed, prove
from engine.memory.answering import needed_bytes
from engine.memory.device_key import device_key
from engine.memory.devices import choose_device
from engine.memory.load_speed import keep_load_speed
from engine.model import LoadedModel
from engine.result import load_target
from engine.target import Target

Plan = Literal["alone", "shared", "resident", "swapped"]
_OTHER_ADAPTER = "other"


@dataclass(frozen=True)
class Loading:
    """Something is about to be loaded.

    Attributes:
        side: Which.
        name: Of its model.
        plan: Whether it stays, or takes turns with the other.
        num_bytes: Of its weights.
        expected_s: Seconds, by the speed of the load before; None at the first.
    """

    side: str
    name: str
    plan: Plan
    num_bytes: int
    expected_s: float | None


def free_bytes_on(device: torch.device) -> int:
    """Memory that is free now."""
    return choose_device(str(device)).free_bytes


class ChatModels:
    """Holds what answers, and the device that it is on.

    Args:
        tell: Called before anything is loaded.
        free_bytes: Memory that is free on a device.
        key_of: What a device is locked by; None for one that needs no lock.
        purpose: What the device is held for.
    """

    def __init__(
        self,
        tell: Callable[[Loading], None],
        free_bytes: Callable[[torch.device], int] = free_bytes_on,
        key_of: Callable[[str], str | None] = device_key,
        purpose: Purpose = "chat",
    ) -> None:
        self._tell = tell
        self._free_bytes = free_bytes
        self._key_of = key_of
        self._purpose: Purpose = purpose
        self._claim: DeviceClaim | None = None
        self._bytes_per_s: float | None = None
        self._device = torch.device("cpu")
        self.sides: dict[str, Side] = {}
        self.plan: Plan = "alone"

    @property
    def bytes_per_s(self) -> float | None:
        """How fast the last model was loaded; None before any was."""
        return self._bytes_per_s

    def load(self, targets: Mapping[str, Target], device: torch.device) -> IdentityProof:
        """Replace what is held, and prove that it is what it is said to be.

        Args:
            targets: One or two by side.
            device: Where to.

        Raises:
            RequestError: One cannot be loaded, or is not what was recorded of it.
            DeviceBusyError: Another process has the device.
        """
        self.clear()
        try:
            self._claim_device(device, " and ".join(target.name for target in targets.values()))
            self._device = device
            self.sides = {name: Side.of(target) for name, target in targets.items()}
            self.plan = self._choose_plan()
            if self.plan == "shared":
                self._load_shared()
            return prove({name: self._probed(name) for name in self.sides})
        except BaseException:
            self.unload()
            raise

    def use(self, name: str) -> LoadedModel:
        """The model of one side, ready to answer; loaded first if another has the memory.

        Raises:
            RequestError: There is no such side, or its model changed on the disk meanwhile.
        """
        side = self.side(name)
        if side.loaded is None:
            self._load_side(name)
            self._refuse_another_model(side)
        assert side.loaded is not None
        if self.plan == "shared":
            from engine.adapters import switch_to  # only here: PEFT takes two seconds to import

            switch_to(side.loaded.model, side.adapter)
        return side.loaded

    def side(self, name: str) -> Side:
        """One side, loaded or not.

        Raises:
            RequestError: There is none of that name.
        """
        if name not in self.sides:
            raise RequestError("messages", f"no {name} model is loaded.", "Load one first.")
        return self.sides[name]

    def clear(self) -> None:
        """Free the memory of all models; the device stays ours."""
        self.sides = {}
        self.plan = "alone"
        _give_back()

    def unload(self) -> None:
        """Free the memory of all models, and let others have the device."""
        self.clear()
        if self._claim is not None:
            self._claim.release()
        self._claim = None

    def base_difference(self) -> float | None:
        """Nats by which a base that shares its adapter's form differs from its files, on the probe.

        None where no base does, or where its run kept no record of it.
        """
        plain = next((one for one in self.sides.values() if one.parts is None), None)
        if self.plan != "shared" or plain is None or plain.scores is None:
            return None
        runs = [one.target.run for one in self.sides.values() if one.target.run is not None]
        recorded = recorded_base(runs[0], as_trained=False) if runs else None
        return recorded.difference(plain.scores) if recorded else None

    def _claim_device(self, device: torch.device, name: str) -> None:
        key = self._key_of(str(device))
        if self._claim is not None:
            self._claim.release()
        self._claim = claim_device(key, self._purpose, name)

    def _choose_plan(self) -> Plan:
        sides = list(self.sides.values())
        if len(sides) == 1:
            return "alone"
        if have_one_base(*sides):
            return "shared"
        kind = "cuda" if self._device.type == "cuda" else "cpu"
        needed = needed_bytes([side.memory for side in sides], kind)
        return "resident" if needed <= self._free_bytes(self._device) else "swapped"

    def _load_shared(self) -> None:
        from engine.adapter_folder import load_base, with_tokenizer_of
        from engine.adapters import ADAPTER

        adapted = [name for name, side in self.sides.items() if side.parts is not None]
        parts = self.sides[adapted[0]].parts
        assert parts is not None
        with self._timed(adapted[0]):
            base = load_base(parts, self._device)
        for name, side in self.sides.items():
            if side.parts is not None:
                side.adapter = ADAPTER if name == adapted[0] else _OTHER_ADAPTER
                side.parts.put_on(base.model, side.adapter)
            side.keep(with_tokenizer_of(side.parts, base) if side.parts else base)
        for side in self.sides.values():
            side.form = self.sides[adapted[0]].form

    def _probed(self, name: str) -> Probed:
        side = self.sides[name]
        loaded = self.use(name) if self.plan == "shared" else self._load_side(name)
        scores, files = probe_scores(loaded), side.files_now()
        side.scores, side.hashes = scores, files
        return Probed(side.target, self.plan == "shared", side.form, files, scores)

    def _load_side(self, name: str) -> LoadedModel:
        if self.plan == "swapped":
            for other in self.sides.values():
                other.loaded = None
            _give_back()
        with self._timed(name):
            loaded = load_target(self.sides[name].target, self._device)
        self.sides[name].keep(loaded)
        return loaded

    def _refuse_another_model(self, side: Side) -> None:
        assert side.loaded is not None
        assert side.scores is not None
        now = probe_scores(side.loaded)
        same_files = side.files_now() == side.hashes
        same_shape = now.shape == side.scores.shape
        if not (same_files and same_shape and (now - side.scores).abs().max() <= TOLERANCE):
            self.unload()
            raise RequestError(
                "messages", f"{side.target.name} changed since it was loaded.", "Load it anew."
            )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        side, rate = self.sides[name], self._bytes_per_s
        expected = side.num_bytes / rate if rate else None
        self._tell(Loading(name, side.target.name, self.plan, side.num_bytes, expected))
        started = time.perf_counter()
        with returning_large_blocks():
            yield
        seconds = time.perf_counter() - started
        self._bytes_per_s = side.num_bytes / max(1e-3, seconds)
        keep_load_speed(side.num_bytes, seconds, choose_device(str(self._device)))
        _give_back()  # what laying out the weights needed for a moment


def _give_back() -> None:
    give_back_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
