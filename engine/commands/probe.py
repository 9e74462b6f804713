"""`probe` and `measure`: what can be known of a run's time and memory by trying it."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from engine.commands.output import duration, print_json, print_mistakes
from engine.contract.device_lock import claim_device
from engine.contract.errors import ExitCode, RequestError
from engine.contract.spec_file import read_spec
from engine.memory.device_key import device_key
from engine.memory.devices import choose_device
from engine.memory.machine_rates import MachineRates, save_rates
from engine.memory.units import gib

if TYPE_CHECKING:
    from engine.probe import Probe


def probe_command(options: Namespace) -> ExitCode:
    """Try a few steps of a spec; no run is created."""
    spec = read_spec(options.spec)

    from engine.methods.protocol import NonFiniteError
    from engine.out_of_memory import ADVICE
    from engine.probe import ProbeOutOfMemory, probe

    try:
        found = probe(spec)
    except ProbeOutOfMemory as error:
        mistake = RequestError("train.batch_size", str(error), ADVICE)
        return _end(ExitCode.OUT_OF_MEMORY, "out_of_memory", mistake, options)
    except NonFiniteError as error:
        mistake = RequestError(
            "train.learning_rate",
            f"in the steps that were tried {error} stopped being a number.",
            "Start again with a third of the learning rate.",
        )
        return _end(ExitCode.DIVERGED, "diverged", mistake, options)
    if options.json:
        print_json(found.as_json())
    else:
        _print_probe(found)
    return ExitCode.DONE


def measure_command(options: Namespace) -> ExitCode:
    """Measure this computer and keep the rates for forecasts to come."""
    device = choose_device(options.device)

    from engine.measure_rates import measure_rates

    with claim_device(device_key(device.id), "measuring"):
        rates = measure_rates(device)
    try:
        path = save_rates(rates)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RequestError(
            "cache", f"the rates cannot be kept: {reason}.", "Make room, or set XDG_CACHE_HOME."
        ) from error
    if options.json:
        print_json(_rates_document(rates))
    else:
        _print_rates(rates, device.name)
        print(f"{'kept in':12} {path}")
    return ExitCode.DONE


def _end(code: ExitCode, kind: str, mistake: RequestError, options: Namespace) -> ExitCode:
    """Tell what ended the steps, in the words and with the exit code of a run."""
    if options.json:
        document = {**mistake.as_json(), "class": kind}
        print_json({"error": document, "errors": [document]})
    else:
        print_mistakes([mistake], as_json=False)
    return code


def _print_probe(found: Probe) -> None:
    step, total = found.step, found.total
    print(_line("step", step.seconds, step.low, step.high))
    print(f"{_line('run', total.seconds, total.low, total.high)}, {total.steps:,} steps")
    forecast = f"{gib(found.forecast.tensor_bytes)} forecast, {found.error_percent:+.1f} %"
    print(f"{'peak':8} {gib(found.measured_peak_bytes):>12}  ({forecast})")
    if found.parted:
        print(found.parted)
    verdict = "Fits" if found.fits else "Does not fit"
    print(f"{verdict} on {found.device.name}, {gib(found.device.free_bytes)} free.")
    for sentence in found.notices:
        print(sentence)


def _line(name: str, seconds: float, low: float, high: float) -> str:
    return f"{name:8} {duration(seconds):>12}  ({duration(low)} to {duration(high)})"


def _rates_document(rates: MachineRates) -> dict[str, Any]:
    return {
        "device": rates.device,
        "flops_per_s": dict(rates.flops_per_s),
        "bytes_per_s": rates.bytes_per_s,
        "seconds_per_operation": rates.seconds_per_operation,
    }


def _print_rates(rates: MachineRates, name: str) -> None:
    print(f"{'device':12} {name}")
    for number_format, rate in rates.flops_per_s.items():
        print(f"{number_format:12} {rate / 1e9:,.0f} GFLOP/s")
    print(f"{'memory':12} {gib(round(rates.bytes_per_s))}/s")
    print(f"{'operation':12} {rates.seconds_per_operation * 1e6:.1f} µs")
