"""Activations of any causal model, traced: its first blocks run on tensors without data.

Fake tensors have shapes and no memory, so that a batch can be as large as it takes for activations
to outweigh everything else.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL, getLogger
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers import AutoModelForCausalLM, masking_utils

from engine.fake_tensors import FakeTensors
from engine.memory.activation_trace import (
    ActivationTrace,
    AtGradient,
    BackwardPass,
    Compute,
    Slope,
    trace_key,
)
from engine.model_switches import attention_of, recompute_activations
from engine.roles import NamedWeight, named_weights
from engine.tensor_meter import LiveTensorMeter

_ROWS, _LENGTH = 2048, 1024
_FORMATS: tuple[Compute, ...] = ("float32", "bfloat16")
_SAME = 1e-4  # bytes per token at two lengths: rounding, and no attention
_traced: dict[tuple[str, Compute, bool], tuple[ActivationTrace, ...]] = {}  # by this process


def trace_activations(
    config: Any,
    formats: Sequence[Compute] = _FORMATS,
    adapters: Sequence[bool] = (False, True),
) -> dict[str, ActivationTrace]:
    """Trace the ways to go through a model that transformers makes from this config.

    Args:
        config: Of a causal language model.
        formats: Of its activations.
        adapters: Whether the model is frozen and adapters learn.

    Returns:
        Traces by `trace_key`. A way that cannot be traced is left out: a model may look at its
        data, which there is none of.
    """
    traces: dict[str, ActivationTrace] = {}
    text = config.to_json_string(use_diff=False)
    for compute in formats:
        for adapter in adapters:
            way = (text, compute, adapter)
            if way not in _traced:
                _traced[way] = _in_either_format(config, compute, adapter=adapter) or ()
            for packed, trace in zip((False, True), _traced[way], strict=False):
                traces[trace_key(compute, adapter=adapter, packed=packed)] = trace
    return traces


def _in_either_format(
    config: Any, compute: Compute, *, adapter: bool
) -> tuple[ActivationTrace, ...] | None:
    """In this format; from the other where some kernel of the model exists in that one only."""
    found = _tried(config, compute, adapter=adapter)
    if found is not None:
        return found
    other: Compute = "bfloat16" if compute == "float32" else "float32"
    factor = 2.0 if compute == "float32" else 0.5
    return tuple(one.scaled(factor) for one in _tried(config, other, adapter=adapter) or ()) or None


def _tried(config: Any, compute: Compute, *, adapter: bool) -> tuple[ActivationTrace, ...] | None:
    """None where an architecture cannot be run without data."""
    log = getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(CRITICAL)  # a kernel that does not know a format is no news
    try:
        return _plain_and_packed(config, compute, adapter=adapter)
    except Exception:  # whatever a model raises that needs data
        return None
    finally:
        log.setLevel(level)


def _plain_and_packed(
    config: Any, compute: Compute, *, adapter: bool
) -> tuple[ActivationTrace, ...]:
    """The same model with rows of one text, and of several, which attention keeps apart."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None) or _LENGTH
    length = min(_LENGTH, longest)
    both_lengths = (length // 2, length)
    with FakeTensors():
        few = _kinds_of_blocks(config)
        half, whole = (_model(config, n, compute, adapter=adapter) for n in (few, 2 * few))
        masked = [[_kept(model, length) for length in both_lengths] for model in (half, whole)]
        with _one_text_a_row():
            alone = {length: _kept(half, length) for length in both_lengths}
            short, long = (kept / length for length, kept in alone.items())
            if abs(long / short - 1) < _SAME:
                del alone[both_lengths[0]]
            plain = _trace(half, whole, few, alone)
    packed = plain.with_mask(
        block=_slope(_less(masked[1], masked[0]), both_lengths).scaled(1 / few),
        outside=_slope(_less(masked[0], masked[1], 2), both_lengths),
    )
    return plain, packed


def _kinds_of_blocks(config: Any) -> int:
    """Blocks that follow each other and differ: each kind has a mask that its blocks share."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or [None]
    return min(2, len(set(kinds)))


class _Run(NamedTuple):
    """Bytes of one pass.

    Attributes:
        kept: Alive when it turned.
        most: Alive beyond that on its way back.
        at_gradients: Alive beyond that when the gradient of a matrix of that size was made.
    """

    kept: int
    most: int
    at_gradients: dict[tuple[int, int], int]


def _trace(half: nn.Module, whole: nn.Module, few: int, kept_of: dict[int, int]) -> ActivationTrace:
    """A few blocks and twice as many, kept first, and then recomputed.

    `kept_of` has what the few keep, for each length.
    """
    lengths, alone = tuple(kept_of), tuple(kept_of.values())
    kept = [_there_and_back(whole, length) for length in lengths]
    again = kept
    if all(parameter.requires_grad for parameter in whole.parameters()):
        # A second way back follows an exact clipping, of weights that all learn.
        again = [_there_and_back(whole, length, again=True) for length in lengths]
    for model in (half, whole):
        recompute_activations(model)
    first = [_kept(half, length) for length in lengths]
    recomputed = [_there_and_back(whole, length) for length in lengths]
    both, inputs = [run.kept for run in kept], [run.kept for run in recomputed]
    return ActivationTrace(
        block=_slope(_less(both, alone), lengths).scaled(1 / few),
        outside=_slope(_less(alone, both, 2), lengths),
        backward=_way_back(kept, lengths),
        backward_again=_way_back(again, lengths),
        block_input=_slope(_less(inputs, first), lengths).scaled(1 / few),
        outside_recomputed=_slope(_less(first, inputs, 2), lengths),
        recomputed=_way_back(recomputed, lengths),
    )


def _way_back(runs: Sequence[_Run], lengths: Sequence[int]) -> BackwardPass:
    at_gradients = [
        AtGradient(*size, _slope([run.at_gradients[size] for run in runs], lengths))
        for size in sorted(runs[0].at_gradients)
    ]
    return BackwardPass(_slope([run.most for run in runs], lengths), tuple(at_gradients))


def _kept(model: nn.Module, length: int) -> int:
    """What a forward pass leaves alive, up to what goes into the head."""
    with _metered(model, length) as (meter, before, hidden):
        assert hidden.requires_grad
        return meter.live_bytes - before


def _there_and_back(model: nn.Module, length: int, *, again: bool = False) -> _Run:
    """A whole pass; weight gradients go as they come.

    Args:
        model: Whose pass.
        length: Tokens in a row.
        again: Whether everything is kept for another way back.
    """
    matrices = [one for one in named_weights(model) if one.role == "linear"]
    if not all(one.parameter.requires_grad for one in matrices):
        matrices = []  # an adapter's are next to nothing
    sizes = {one.parameter: _stored_shape(one) for one in matrices}
    at_gradients: dict[tuple[int, int], int] = {}
    with _metered(model, length) as (meter, before, hidden):
        kept = meter.live_bytes - before

        def look(size: tuple[int, int]) -> None:
            held = meter.live_bytes - before - kept
            at_gradients[size] = max(held, at_gradients.get(size, held))

        hooks = [
            named.parameter.register_post_accumulate_grad_hook(lambda weight: look(sizes[weight]))
            for named in matrices
        ]
        arriving = torch.zeros_like(hidden)
        meter.peak_bytes = meter.live_bytes
        hidden.backward(arriving, retain_graph=again)
        for hook in hooks:
            hook.remove()
        return _Run(kept, meter.peak_bytes - before - kept, at_gradients)


def _stored_shape(named: NamedWeight) -> tuple[int, int]:
    rows, columns = named.parameter.shape
    return (columns, rows) if named.transposed else (rows, columns)


@contextmanager
def _metered(model: nn.Module, length: int) -> Iterator[tuple[LiveTensorMeter, int, Tensor]]:
    """A forward pass under the meter: the meter, what was alive before, and the hidden states."""
    tokens = torch.zeros(_ROWS, length, dtype=torch.long)
    fakes = cast(FakeTensors, cast(Any, tokens).fake_mode)
    meter = fakes.meter = LiveTensorMeter([*model.parameters(), *model.buffers(), tokens])
    try:
        before = meter.live_bytes
        base: Any = cast(Any, model).base_model
        yield meter, before, base(input_ids=tokens, use_cache=False).last_hidden_state
    finally:
        fakes.meter = None


def _less(bytes_: Sequence[int], others: Sequence[int], times: int = 1) -> list[int]:
    return [times * one - other for one, other in zip(bytes_, others, strict=True)]


def _slope(numbers: Sequence[int], lengths: Sequence[int]) -> Slope:
    """Through one length or two; bytes are `tokens * (per_token + per_pair * length)`."""
    per_token = [number / (_ROWS * length) for number, length in zip(numbers, lengths, strict=True)]
    run = lengths[-1] - lengths[0]
    per_pair = (per_token[-1] - per_token[0]) / run if run else 0.0
    return Slope(round(per_token[0] - per_pair * lengths[0], 2), round(per_pair, 4))


def _model(config: Any, blocks: int, compute: Compute, *, adapter: bool) -> nn.Module:
    """The first blocks of the model, on the fake mode's own tensors, which hold no data."""
    own = _with_blocks(config, blocks)
    with unset_fake_temporarily(), torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(
            own, dtype=getattr(torch, compute), attn_implementation=attention_of(own)
        )
        if adapter:
            _put_adapters_on(model)
    fakes: dict[int, Tensor] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, fakes.setdefault(id(parameter), _fake_parameter(parameter)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return model.train()


def _fake_parameter(meta: nn.Parameter) -> nn.Parameter:
    fake = nn.Parameter(torch.empty(meta.shape, dtype=meta.dtype), meta.requires_grad)
    if fake.requires_grad:
        fake.register_post_accumulate_grad_hook(_drop_gradient)
    return fake


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _put_adapters_on(model: nn.Module) -> None:
    """Freeze it, and put the smallest adapter on every linear layer of its blocks."""
    # Only here: where PEFT is missing, models can be traced all the same.
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    model.requires_grad_(False)
    linear = [named for named in named_weights(model) if named.role == "linear"]
    layers = sorted({named.name.removesuffix(".weight") for named in linear})
    transposed = any(named.transposed for named in linear)
    adapters = LoraConfig(r=1, target_modules=layers, fan_in_fan_out=transposed)
    inject_adapter_in_model(adapters, model)
    cast_adapter_dtype(model, "default")


def _with_blocks(config: Any, blocks: int) -> Any:
    """The config of a model with so many blocks, which are the first of this one's."""
    own = copy.deepcopy(config)
    text = own.get_text_config()
    whole = int(text.num_hidden_layers)
    for name, value in vars(text).items():  # what is said block by block
        if isinstance(value, list) and len(cast("list[Any]", value)) == whole:
            setattr(text, name, (value * blocks)[:blocks])
    text.num_hidden_layers = blocks
    return own


@contextmanager
def _one_text_a_row() -> Iterator[None]:
    """Attention needs no mask; to see that, it would look into the data."""
    name = "find_packed_sequence_indices"
    own = getattr(masking_utils, name)
    setattr(masking_utils, name, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(masking_utils, name, own)
