"""How long a run would take, in words, and what came of two steps that were tried."""

from __future__ import annotations

from typing import Any

from engine.memory.step_time import StepTime, TotalTime
from engine.memory.units import gib
from qft_gui.forecasts import Report
from qft_gui.surroundings import Situation
from qft_gui.trials import Trial, TrialAnswer
from qft_gui.view.numbers import MISSING, compared, two_digits
from qft_gui.view.sentences import sentence

# Seconds of each unit, and from where on a time is told in it.
_UNITS = (("days", 86_400, 2 * 86_400), ("h", 3600, 90 * 60), ("min", 60, 90), ("s", 1, 1))


def seconds(value: float) -> str:
    """A time that was forecast or tried, in one unit and two significant figures.

    >>> seconds(0.0423), seconds(0.83), seconds(3.14), seconds(31.4), seconds(4000)
    ('42 ms', '830 ms', '3.1 s', '31 s', '67 min')
    >>> seconds(75_612), seconds(172_000), seconds(12_345_678)
    ('21 h', '48 h', '140 days')
    """
    for unit, size, least in _UNITS:
        if two_digits(value) >= least:  # 0.9996 is a second, and 89.6 are not 90 of them
            return f"{two_digits(value / size):,g} {unit}"
    return f"{max(1, two_digits(1000 * value)):g} ms"


def range_of(low: float, high: float) -> str:
    """A band of times.

    >>> range_of(40, 70), range_of(50, 130), range_of(36_000, 161_234)
    ('40 to 70 s', '50 s to 2.2 min', '10 to 45 h')
    """
    least, most = seconds(low), seconds(high)
    if least == most:
        return least
    number, _, unit = least.partition(" ")
    return f"{number if most.endswith(f' {unit}') else least} to {most}"


def row_time(step: StepTime | None, total: TotalTime | None) -> dict[str, str]:
    """For a row of the method table."""
    return {
        "step": seconds(step.seconds) if step else MISSING,
        "total": f"{seconds(total.seconds)} in all" if total else "",
    }


def time_card(report: Report, situation: Situation) -> dict[str, Any]:
    """What is known of the time, and what can be tried."""
    row = report.chosen_row
    found = row.prospect if row else None
    if found is None or report.spec is None:
        return {"known": False}
    words, source, forecast = _not_known(situation), "", ""
    if found.step is not None:
        words, source = _forecast(found.step, found.total), found.step.source
        forecast = f"Forecast: {words[:1].lower()}{words[1:]}"
    trial = situation.trial
    return {
        "known": True,
        "sentence": words,
        "source": source,
        "forecast": forecast,
        "trying": _trying(trial, situation),
        "button": _button(report, trial),
        "busy": _busy(situation),
        "tried": _tried(trial.answer) if trial and trial.answer else None,
        "failed": sentence(trial.error) if trial and trial.error else "",
    }


def _forecast(step: StepTime, total: TotalTime | None) -> str:
    words = f"About {seconds(step.seconds)} a step"
    if total is None:
        return f"{words} ({range_of(step.low, step.high)})."
    return f"{words}, {seconds(total.seconds)} in all ({range_of(total.low, total.high)})."


def _not_known(situation: Situation) -> str:
    if situation.unmeasured is not None:
        return f"Time: not known. {sentence(situation.unmeasured)}"
    if situation.is_measuring:
        return "Time: not known yet. The speed of this computer is being measured, once."
    if situation.run is not None:
        return "Time: not known yet. This computer is measured, once, when no run is going."
    return "Time: not known yet."


def _trying(trial: Trial | None, situation: Situation) -> str:
    if trial is not None and not trial.is_over:
        return f"Trying two steps… {trial.seconds} s"
    return "Two steps of other settings are being tried." if situation.is_trying_another else ""


def _button(report: Report, trial: Trial | None) -> str:
    if trial is not None and trial.answer is not None:
        return "Try again"
    is_away = report.model is not None and report.model.kind in ("catalogue", "hub")
    return "Download it and try two steps" if is_away else "Try two steps"


def _busy(situation: Situation) -> str:
    if situation.run is None:
        return ""
    return f"Two steps can be tried once {situation.run} has ended: it holds the computer."


def _tried(answer: TrialAnswer) -> dict[str, Any]:
    total = range_of(answer.low_total_seconds, answer.high_total_seconds)
    forecast, peak = answer.forecast_bytes, answer.measured_peak_bytes
    return {
        "time": f"{seconds(answer.seconds_per_step)} a step, {seconds(answer.total_seconds)} "
        f"in all ({total}).",
        "memory": f"{gib(peak)} at the peak; forecast {gib(forecast)}, {compared(forecast, peak)}.",
        "fits": answer.fits,
        "notices": answer.notices,
    }
