"""`estimate` and `inspect`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError, RequestErrors, mistakes
from engine.contract.model_source import check_model_folder, resolve_model
from engine.contract.presets import resolve_presets
from engine.contract.spec import METHOD_KINDS, MethodKind, RunSpec
from engine.contract.spec_file import read_spec, validate_spec
from engine.data.source import Dataset, read_dataset
from engine.memory.devices import Device, choose_device
from engine.memory.estimate import Forecast, estimate
from engine.memory.units import gib
from engine.shapes import describe_tokenizer, find_shape


def estimate_command(options: Namespace) -> ExitCode:
    """Forecast one spec, or the same spec with every method."""
    spec = read_spec(options.spec)
    device = _device(spec, options.gpu_gib)
    kinds = METHOD_KINDS if options.all_methods else (spec.method.kind,)
    forecasts, dataset = _forecast_and_read(spec, kinds, device)
    if options.json:
        rows = {kind: _document(forecast, dataset) for kind, forecast in forecasts.items()}
        every = [{"kind": kind, "preset": None, **row} for kind, row in rows.items()]
        print_json({"methods": every} if options.all_methods else rows[spec.method.kind])
        return ExitCode.DONE
    refused = f", {len(dataset.refused):,} refused" if dataset.refused else ""
    print(f"data: {len(dataset.chats):,} rows as {dataset.format}{refused}")
    if options.all_methods:
        _print_methods(forecasts)
    else:
        _print_terms(forecasts[spec.method.kind], device)
    return ExitCode.DONE


def _forecast_and_read(
    spec: RunSpec, kinds: Sequence[MethodKind], device: Device
) -> tuple[dict[MethodKind, Forecast], Dataset]:
    """A forecast for each method, and the data; all that `run` would refuse is refused at once."""
    found: list[RequestError] = []
    forecasts: dict[MethodKind, Forecast] = {}
    dataset = None
    try:
        forecasts = {kind: forecast_of(_with_method(spec, kind), device) for kind in kinds}
    except (RequestError, RequestErrors) as error:
        found.extend(mistakes(error))
    try:
        dataset = read_dataset(spec.data)
    except RequestError as error:
        found.append(error)
    if found or dataset is None:
        raise RequestErrors(found)
    return forecasts, dataset


def _document(forecast: Forecast, dataset: Dataset) -> dict[str, Any]:
    data = {
        "rows": len(dataset.chats),
        "refused": len(dataset.refused),
        "format": dataset.format,
    }
    return {**forecast.as_json(), "data": data}


def forecast_of(spec: RunSpec, device: Device) -> Forecast:
    """Resolve a spec and forecast it.

    Raises:
        RequestError: The model cannot be used.
    """
    reference = resolve_model(spec.model.source)
    if reference.folder is not None:
        check_model_folder(reference.folder)
    shape = find_shape(reference, spec.model.revision)
    return estimate(resolve_presets(spec, reference), shape, device)


def _device(spec: RunSpec, gpu_gib: float | None) -> Device:
    if gpu_gib is None:
        return choose_device(spec.train.device)
    if not 0 < gpu_gib < 1e6:
        raise RequestError(
            "--gpu-gib", "it must be a number of GiB above 0.", "Use one such as 24."
        )
    size = int(gpu_gib * 1024**3)
    return Device("cuda", "cuda", f"a GPU with {gpu_gib:g} GiB", size, size)


def _print_methods(forecasts: Mapping[MethodKind, Forecast]) -> None:
    for kind, forecast in forecasts.items():
        band = f"{gib(forecast.low_bytes)} to {gib(forecast.high_bytes)}"
        print(f"{kind:8} {gib(forecast.total_bytes):>12}  ({band})  {_verdict(forecast)}")


def _with_method(spec: RunSpec, kind: MethodKind) -> RunSpec:
    """The same request for another method; its own settings only where it is the one asked for."""
    if kind == spec.method.kind:
        return spec
    document: dict[str, Any] = spec.as_json()
    document["method"] = {"kind": kind}
    document["train"] |= {"grad_accumulation": 1, "max_grad_norm": None}
    return validate_spec(document)


def _print_terms(forecast: Forecast, device: Device) -> None:
    for term, size in forecast.terms.items():
        print(f"{term:12} {gib(size):>12}")
    band = f"{gib(forecast.low_bytes)} to {gib(forecast.high_bytes)}"
    print(f"{'total':12} {gib(forecast.total_bytes):>12}  ({band})")
    print(f"{_verdict(forecast)} on {device.name}, {gib(device.free_bytes)} free.")
    for sentence in forecast.advice:
        print(sentence)


def _verdict(forecast: Forecast) -> str:
    words = {"fits": "Fits", "tight": "Tight", "too_large": "Does not fit", "unknown": "Unknown"}
    return words[forecast.verdict]


def inspect_command(options: Namespace) -> ExitCode:
    """Shapes, parameters, tokenizer and template of a model."""
    reference = resolve_model(options.model)
    if reference.folder is not None:
        check_model_folder(reference.folder)
    shape = find_shape(reference)
    tokenizer = describe_tokenizer(reference)
    if options.json:
        document = shape.model_dump(mode="json")
        print_json({**document, "num_parameters": shape.num_parameters, "tokenizer": tokenizer})
        return ExitCode.DONE
    print(f"{shape.name}: {shape.model_type}, {shape.num_parameters:,} parameters")
    print(f"{shape.num_layers} layers, hidden size {shape.hidden_size}, {shape.num_heads} heads")
    print(f"vocabulary {shape.vocab_size:,}, context {shape.max_position or 'unknown'}")
    print(_tokenizer_line(tokenizer))
    for tensor in shape.tensors:
        size = " x ".join(map(str, tensor.shape))
        print(f"  {tensor.repeat:4} x {tensor.name}  ({size})  {tensor.role}")
    return ExitCode.DONE


def _tokenizer_line(tokenizer: dict[str, Any] | None) -> str:
    if tokenizer is None:
        return "tokenizer: known once the model is downloaded"
    template = "a chat template" if tokenizer["chat_template"] else "no chat template"
    return f"tokenizer: {tokenizer['num_tokens'] or 'unknown number of'} tokens, {template}"
