"""`estimate` and `inspect`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from engine.commands.fitting import (
    fit_document,
    fit_lines,
    holders_document,
    holders_line,
    needs_document,
    needs_line,
)
from engine.commands.method_table import VERDICTS, MethodTable, band_of
from engine.commands.output import duration, print_json
from engine.commands.prospect import Prospect, prospect_of, shape_of
from engine.contract.errors import ExitCode, RequestError, RequestErrors, mistakes
from engine.contract.model_source import check_model_folder, resolve_model
from engine.contract.spec import RunSpec
from engine.contract.spec_file import read_spec
from engine.data.dataset import Dataset
from engine.data.source import read_dataset
from engine.memory.devices import Device, choose_device
from engine.memory.fit import Fitting, fit
from engine.memory.holders import Holder, holders
from engine.memory.units import gib
from engine.shapes import describe_tokenizer, find_shape


def estimate_command(options: Namespace) -> ExitCode:
    """Forecast one spec, or the same spec with every method and preset."""
    _refuse_contradictions(options)
    spec = read_spec(options.spec)
    device = _device(spec, options.gpu_gib)
    held = () if options.gpu_gib else holders(device)
    if options.all_methods:
        return _compare_methods(spec, device, held, as_json=options.json)
    found: tuple[RequestError, ...] = ()
    prospect = None
    try:
        prospect = prospect_of(spec, device, shape_of(spec))
    except (RequestError, RequestErrors) as error:
        found = mistakes(error)
    dataset = _read(spec, found)
    assert prospect is not None
    fitting = _fitting(prospect, shorten=options.shorten) if options.fit else None
    needs = prospect.gpu()
    if options.json:
        print_json(
            {
                **_document(prospect, dataset),
                "needs": needs_document(needs),
                "holders": holders_document(held),
                **({"fit": fit_document(fitting)} if fitting else {}),
            }
        )
        return ExitCode.DONE
    _print_data(dataset)
    _print_terms(prospect)
    _print_time(prospect, dataset)
    print(needs_line(needs, device))
    _print_held(held)
    for line in fit_lines(fitting, needs) if fitting else ():
        print(line)
    return ExitCode.DONE


def _refuse_contradictions(options: Namespace) -> None:
    if options.shorten and not options.fit:
        raise RequestError("--shorten", "it says what --fit may do.", "Add --fit.")
    if options.fit and options.all_methods:
        raise RequestError(
            "--fit", "--all-methods says what would fit already.", "Leave one of them out."
        )


def _fitting(prospect: Prospect, *, shorten: bool) -> Fitting:
    return fit(prospect.spec, prospect.shape, prospect.device, may_shorten=shorten)


def _compare_methods(
    spec: RunSpec, device: Device, held: Sequence[Holder], *, as_json: bool
) -> ExitCode:
    """One row for each method and preset that can do the request; the others say why not."""
    table = MethodTable.of(spec, device)
    dataset = _read(spec, table.wrong)
    if as_json:
        print_json(table.document(lambda one: _document(one, dataset)))
        return ExitCode.DONE
    _print_data(dataset)
    for line in table.lines(dataset):
        print(line)
    _print_held(held)
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


def _document(prospect: Prospect, dataset: Dataset) -> dict[str, Any]:
    data = {
        "rows": dataset.usable,
        "refused": dataset.refused_count,
        "format": dataset.format,
    }
    time = prospect.time_document(dataset.usable)
    return {**prospect.forecast.as_json(), "time": time, "data": data}


def _device(spec: RunSpec, gpu_gib: float | None) -> Device:
    if gpu_gib is None:
        return choose_device(spec.train.device)
    if not 0 < gpu_gib < 1e6:
        raise RequestError(
            "--gpu-gib", "it must be a number of GiB above 0.", "Use one such as 24."
        )
    if spec.train.device in ("cpu", "mps"):
        raise RequestError(
            "--gpu-gib",
            f"it is for a GPU, but train.device of this spec is {spec.train.device}.",
            "Leave it out, or set train.device to auto.",
        )
    size = int(gpu_gib * 1024**3)
    return Device("cuda", "cuda", f"a GPU with {gpu_gib:g} GiB", size, size)


def _print_data(dataset: Dataset) -> None:
    refused = f", {dataset.refused_count:,} refused" if dataset.refused_count else ""
    print(f"data: {dataset.usable:,} rows as {dataset.format}{refused}")


def _print_terms(prospect: Prospect) -> None:
    forecast, device = prospect.forecast, prospect.device
    for term, size in forecast.terms.items():
        print(f"{term:12} {gib(size):>12}")
    print(f"{'total':12} {gib(forecast.total_bytes):>12}  ({band_of(forecast)})")
    print(f"{VERDICTS[forecast.verdict]} on {device.name}, {gib(device.free_bytes)} free.")
    for sentence in forecast.advice:
        print(sentence)


def _print_time(prospect: Prospect, dataset: Dataset) -> None:
    step, total = prospect.step, prospect.total(dataset.usable)
    if step is None:
        return
    words = f"A step takes {duration(step.seconds)} ({duration(step.low)} to {duration(step.high)})"
    if total:
        band = f"{duration(total.low)} to {duration(total.high)}"
        words += f", {total.steps:,} steps {duration(total.seconds)} ({band})"
    print(f"{words}. {step.source}")


def _print_held(held: Sequence[Holder]) -> None:
    line = holders_line(held)
    if line:
        print(line)


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
