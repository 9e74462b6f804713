"""X-ray: what weights, gradients and moments of a model or a run look like, layer by layer.

The paper shows this for one model (QFT, figure 2). Here it is measured for any, since whether
outliers are worth keeping apart is a property of the model.

Everything happens on the CPU and one tensor at a time: a gradient is looked at as soon as backward
has it and then freed, so a model needs its own weights, the activations of one small batch, and
little more than one tensor in float32. A run needs its state beside that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.model_source import count_parameters, is_adapter_folder, resolve_model
from engine.contract.run_dir import RunDir
from engine.contract.spec import RunSpec
from engine.contract.spec_file import validate_spec
from engine.data.source import read_dataset
from engine.distribution import BIN_CENTRES, GROUP, Distribution, distribution_of, merged
from engine.gradient_pass import first_batch, pass_gradients
from engine.memory.model_shape import Role
from engine.memory.plans import plan_for
from engine.model import LoadedModel, fetch_model, load_model
from engine.result import load_result
from engine.roles import named_weights
from engine.run_state import read_state

WEIGHTS, GRADIENTS = "weights", "gradients"
DEFAULT_DATA = "pirate"
BATCH_SIZE, SEQUENCE_LENGTH = 4, 256
# Up to here the gradients are computed in float32, above in the format of the model's files.
FLOAT32_PARAMETERS = 1_000_000_000
STORED_ALREADY = (
    "QFT stores matrices and momentum in 8 bits or fewer already: rounding them once more loses "
    "less than the first time did."
)
ADAPTER_ONLY = "This run trains an adapter, and that is what is shown: the model itself is frozen."
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class TensorView:
    """One tensor of one kind, by the name of its weight.

    Attributes:
        layer: Number of the block it belongs to; None outside all blocks.
        part: What it is within its block, such as `mlp.up_proj`.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    seen: Distribution

    @property
    def layer(self) -> int | None:
        """Number of the block."""
        found = _LAYER.search(self.name)
        return int(found.group(1)) if found else None

    @property
    def part(self) -> str:
        """The name without block and `weight`."""
        found = _LAYER.search(self.name)
        inside = self.name[found.end() :] if found else self.name.rpartition("model.")[2]
        return inside.removesuffix(".weight")

    @property
    def is_matrix(self) -> bool:
        """Whether it is worth 8 bits: norms and biases stay in float32."""
        return len(self.shape) > 1

    def as_json(self) -> dict[str, Any]:
        """The tensor's row in the answer."""
        return {
            "name": self.name,
            "layer": self.layer,
            "part": self.part,
            "role": self.role,
            "shape": list(self.shape),
            **self.seen.as_json(),
        }


@dataclass
class Xray:
    """What was seen. `kinds` holds weights, gradients and the method's moments, by tensor name."""

    name: str
    step: int | None = None
    data: str | None = None
    num_parameters: int = 0
    kinds: dict[str, dict[str, TensorView]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def layers(self, kind: str) -> list[tuple[str, Distribution]]:
        """The matrices of each block as one, in the model's order; others by their own name."""
        groups: dict[str, list[Distribution]] = {}
        for view in self.kinds[kind].values():
            if view.is_matrix:
                label = view.part if view.layer is None else f"layer {view.layer}"
                groups.setdefault(label, []).append(view.seen)
        return [(label, merged(parts)) for label, parts in groups.items()]

    def as_json(self) -> dict[str, Any]:
        """The answer's document."""
        return {
            "name": self.name,
            "step": self.step,
            "data": self.data,
            "num_parameters": self.num_parameters,
            "bin_centres": list(BIN_CENTRES),
            "kinds": [
                {
                    "kind": kind,
                    "layers": [
                        {"label": label, **seen.as_json()} for label, seen in self.layers(kind)
                    ],
                    "tensors": [view.as_json() for view in views.values()],
                }
                for kind, views in self.kinds.items()
            ],
            "notes": self.notes,
        }


def xray_model(source: str, data: str | None, tell: Tell) -> Xray:
    """Weights of a model, and its gradients on one batch.

    Args:
        source: What `model.source` may be.
        data: A dataset; the bundled `pirate` if None.
        tell: Called with what is being done now.

    Raises:
        RequestError: Model or data cannot be used.
    """
    reference = resolve_model(source)
    train = {"batch_size": BATCH_SIZE, "sequence_length": SEQUENCE_LENGTH}
    spec = validate_spec(
        {
            "model": {"source": source},
            "data": {"source": data or DEFAULT_DATA},
            "method": {"kind": "full"},
            "train": train,
        }
    )
    read_dataset(spec.data)  # a mistake in it is told before a model is downloaded
    tell("loading the model…")
    loaded = _load(fetch_model(reference, None))
    seen = Xray(reference.name)
    tell("reading the weights…")
    _look(seen, WEIGHTS, loaded.model, _parameters(loaded.model))
    _look_at_gradients(seen, loaded, spec, tell)
    return seen


def xray_run(run: RunDir, data: str | None, tell: Tell) -> Xray:
    """Weights and moments of a run's newest checkpoint, and the gradients that it gives.

    Where no checkpoint is left the result's weights are looked at, and `notes` says so. The run
    folder is not changed.

    Args:
        run: The run folder.
        data: A dataset for the gradients; the first batch of the run's own if None.
        tell: Called with what is being done now.

    Raises:
        RequestError: There is nothing to look at, or `data` cannot be used.
    """
    spec = run.spec()
    if data is not None:
        spec = validate_spec({**spec.as_json(), "data": {"source": data}})
        read_dataset(spec.data)
    seen = Xray(run.name)
    tell("reading the checkpoint…")
    loaded = _look_at_state(seen, run, spec, tell)
    try:
        _look_at_gradients(seen, loaded, spec, tell)
    except (RequestError, RequestErrors) as error:
        if data is not None:
            raise
        seen.notes.append(f"No gradients: {mistakes(error)[0].message}")
    # Moments last, as a person reads them.
    seen.kinds = {kind: seen.kinds[kind] for kind in sorted(seen.kinds, key=_place)}
    return seen


def _look_at_state(seen: Xray, run: RunDir, spec: RunSpec, tell: Tell) -> LoadedModel:
    """Weights and moments; returns a plain model with the weights in it."""
    state = read_state(run, spec)
    if state is None:
        loaded = _load_export(run, spec, seen)
        tell("reading the weights…")
        _look(seen, WEIGHTS, loaded.model, _parameters(loaded.model))
        return loaded
    seen.step = state.step
    weights = state.method.weights()
    if state.adapted is not None:
        loaded = state.adapted
        seen.notes.append(ADAPTER_ONLY)
    else:
        loaded = _load(fetch_model(resolve_model(spec.model.source), spec.model.revision))
        weights = _taken_over(loaded.model, weights)
    tell("reading the weights…")
    _look(seen, WEIGHTS, loaded.model, weights)
    tell("reading the momentum…")
    for name, moment, values in state.method.moments():
        _look(seen, moment, loaded.model, [(name, values)])
    _tell_lag(run, seen, state.step)
    if spec.method.kind == "qft":
        seen.notes.append(STORED_ALREADY)
    return loaded


def _place(kind: str) -> int:
    return {WEIGHTS: 0, GRADIENTS: 1}.get(kind, 2)


def _load(folder: Path) -> LoadedModel:
    small = count_parameters(folder) <= FLOAT32_PARAMETERS
    return load_model(folder, torch.float32 if small else None)


def _load_export(run: RunDir, spec: RunSpec, seen: Xray) -> LoadedModel:
    if not run.has_export:
        goes_on = run.result is None
        way_out = f"Its first one comes at step {spec.train.checkpoint_every}." if goes_on else ""
        raise RequestError("TARGET", f"{run.name} has neither checkpoint nor result.", way_out)
    plan = plan_for(spec.method)
    has_moments = plan.adapter is not None or plan.of("linear").moments
    moments = ", and there are no moments" if has_moments else ""
    seen.notes.append(f"No checkpoint is left: these are the weights of the result{moments}.")
    if is_adapter_folder(run.export):
        seen.notes.append(ADAPTER_ONLY)
        return load_result(run.export, torch.device("cpu"))
    return _load(run.export)


def _tell_lag(run: RunDir, seen: Xray, step: int) -> None:
    done = (run.result or {}).get("steps_done")
    if isinstance(done, int) and done > step:
        seen.notes.append(f"The newest checkpoint is of step {step}; the run ended at step {done}.")


def _parameters(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """All of a model, or what is trained in one that is frozen."""
    for named in named_weights(model):
        if named.parameter.requires_grad:
            yield named.name, named.parameter


def _taken_over(
    model: nn.Module, weights: Iterable[tuple[str, Tensor]]
) -> Iterable[tuple[str, Tensor]]:
    """The weights, each copied into a plain model as it passes by."""
    own = {named.name: named.parameter for named in named_weights(model)}
    for name, values in weights:
        with torch.no_grad():
            own[name].copy_(values)
        yield name, values


def _look(seen: Xray, kind: str, model: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> None:
    known = {named.name: named for named in named_weights(model)}
    views = seen.kinds.setdefault(kind, {})
    for name, values in tensors:
        named = known[name]
        # Rows are outputs, as they are where a scale belongs to a row.
        found = distribution_of(values.T if named.transposed else values)
        if kind == WEIGHTS:
            seen.num_parameters += values.numel()
        if found is None:
            seen.notes.append(f"{kind} of {name} hold NaN or infinity and are left out.")
            continue
        views[name] = TensorView(name, named.role, tuple(values.shape), found)
    if kind == WEIGHTS:
        _tell_odd_rows(seen, views.values())


def _tell_odd_rows(seen: Xray, views: Iterable[TensorView]) -> None:
    odd = sum(1 for view in views if view.is_matrix and view.shape[-1] % GROUP)
    if odd:
        seen.notes.append(
            f"In {odd} {'matrix' if odd == 1 else 'matrices'} a row cannot be cut into groups of "
            f"{GROUP}: there, a scale per {GROUP} values means one scale per row."
        )


def _look_at_gradients(seen: Xray, loaded: LoadedModel, spec: RunSpec, tell: Tell) -> None:
    batch = first_batch(spec, loaded)
    tell("computing the gradients…")
    without = pass_gradients(
        loaded, batch, lambda name, values: _look(seen, GRADIENTS, loaded.model, [(name, values)])
    )
    # Backward begins at the end.
    views = seen.kinds.setdefault(GRADIENTS, {})
    order = (named.name for named in named_weights(loaded.model))
    seen.kinds[GRADIENTS] = {name: views[name] for name in order if name in views}
    seen.data = spec.data.source
    if without:
        seen.notes.append(f"{len(without)} weights get no gradient from this batch.")
