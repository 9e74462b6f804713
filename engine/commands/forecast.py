"""`estimate` and `inspect`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError, RequestErrors, mistakes
from engine.contract.method_settings import MethodKind, QftPreset
from engine.contract.model_source import check_model_folder, resolve_model
from engine.contract.presets import METHOD_CHOICES, MethodChoice, resolve_presets
from engine.contract.spec import RunSpec
from engine.contract.spec_file import read_spec, validate_spec
from engine.data.source import Dataset, read_dataset
from engine.memory.devices import Device, choose_device
from engine.memory.estimate import Forecast, estimate
from engine.memory.lost_updates import lost_updates
from engine.memory.resolve import resolve_for_device
from engine.memory.units import gib
from engine.shapes import describe_tokenizer, find_shape


def estimate_command(options: Namespace) -> ExitCode:
    """Forecast one spec, or the same spec with every method and preset."""
    spec = read_spec(options.spec)
    device = _device(spec, options.gpu_gib)
    if options.all_methods:
        return _compare_methods(spec, device, as_json=options.json)
    found: tuple[RequestError, ...] = ()
    forecast = None
    try:
        forecast = forecast_of(spec, device)
    except (RequestError, RequestErrors) as error:
        found = mistakes(error)
    dataset = _read(spec, found)
    assert forecast is not None
    if options.json:
        print_json(_document(forecast, dataset))
        return ExitCode.DONE
    _print_data(dataset)
    _print_terms(forecast, device)
    return ExitCode.DONE


def _compare_methods(spec: RunSpec, device: Device, *, as_json: bool) -> ExitCode:
    """One row for each method and preset that can do the request; the others say why not."""
    rows: dict[MethodChoice, Forecast] = {}
    refused: dict[MethodChoice, tuple[RequestError, ...]] = {}
    for choice in METHOD_CHOICES:
        try:
            rows[choice] = forecast_of(_with_method(spec, *choice), device)
        except (RequestError, RequestErrors) as error:
            refused[choice] = mistakes(error)
    # What no method can do is wrong with the request, and is said once, with the data's mistakes.
    everywhere = () if rows else next(iter(refused.values()))
    dataset = _read(spec, everywhere)
    if as_json:
        print_json(
            {
                "methods": [
                    {"kind": kind, "preset": preset, **_document(forecast, dataset)}
                    for (kind, preset), forecast in rows.items()
                ],
                "refused": [
                    {"kind": kind, "preset": preset, "errors": [one.as_json() for one in errors]}
                    for (kind, preset), errors in refused.items()
                ],
            }
        )
        return ExitCode.DONE
    _print_data(dataset)
    for choice in METHOD_CHOICES:
        print(f"{' '.join(filter(None, choice)):14}", end=" ")
        if choice in rows:
            print(_summary(rows[choice]))
        else:
            why = " ".join(f"{one.field}: {one.message}" for one in refused[choice])
            print(f"{'-':>12}  Cannot do this. {why}")
    return ExitCode.DONE


def _read(spec: RunSpec, found: Sequence[RequestError]) -> Dataset:
    """The data; all that `run` would refuse is refused at once.

    Args:
        spec: Names it.
        found: What is wrong already.
    """
    try:
        dataset = read_dataset(spec.data)
    except RequestError as error:
        raise RequestErrors([*found, error]) from error
    if found:
        raise RequestErrors(found)
    return dataset


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
    complete = resolve_for_device(resolve_presets(spec, reference), shape, device)
    forecast = estimate(complete, shape, device)
    warning = lost_updates(complete, shape)
    return replace(forecast, advice=(*forecast.advice, warning)) if warning else forecast


def _device(spec: RunSpec, gpu_gib: float | None) -> Device:
    if gpu_gib is None:
        return choose_device(spec.train.device)
    if not 0 < gpu_gib < 1e6:
        raise RequestError(
            "--gpu-gib", "it must be a number of GiB above 0.", "Use one such as 24."
        )
    size = int(gpu_gib * 1024**3)
    return Device("cuda", "cuda", f"a GPU with {gpu_gib:g} GiB", size, size)


def _with_method(spec: RunSpec, kind: MethodKind, preset: QftPreset | None) -> RunSpec:
    """The same request for another method, with nothing but its preset's own settings.

    Raises:
        RequestErrors: The method cannot do what is asked.
    """
    method = {"kind": kind} if preset is None else {"kind": kind, "preset": preset}
    return validate_spec({**spec.as_json(), "method": method})


def _print_data(dataset: Dataset) -> None:
    refused = f", {len(dataset.refused):,} refused" if dataset.refused else ""
    print(f"data: {len(dataset.chats):,} rows as {dataset.format}{refused}")


def _summary(forecast: Forecast) -> str:
    band = f"{gib(forecast.low_bytes)} to {gib(forecast.high_bytes)}"
    return f"{gib(forecast.total_bytes):>12}  ({band})  {_verdict(forecast)}"


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
