"""How long a run would take, in words, and what came of two steps that were tried."""

from __future__ import annotations

from typing import Any

from engine.contract.errors import RequestError
from engine.memory.step_time import StepTime, TotalTime
from qft_gui.forecasts import Report
from qft_gui.surroundings import Situation
from qft_gui.trials import Trial, TrialAnswer
from qft_gui.view.numbers import MISSING, duration, gib, off_by, wait

_FEW_SECONDS = 10
_COARSE_FROM = 10 * 3600


def seconds(value: float) -> str:
    """A step's time; short ones to a tenth or less.

    >>> seconds(0.042), seconds(0.83), seconds(3.14), seconds(31.4)
    ('42 ms', '830 ms', '3.1 s', '31 s')
    """
    return wait(value) if value < _FEW_SECONDS else duration(value)


def whole(value: float) -> str:
    """A run's time: the longer it is, the coarser.

    >>> whole(50), whole(4000), whole(172_000), whole(1_000_000)
    ('50 s', '1 h 7 min', '48 h', '12 days')
    """
    if value < _COARSE_FROM:
        return duration(value)
    hours = round(value / 3600)
    return f"{hours} h" if hours < 2 * 24 + 1 else f"{round(value / 86_400)} days"


def range_of(low: float, high: float) -> str:
    """A band of times.

    >>> range_of(40, 70)
    '40 s to 70 s'
    """
    return f"{seconds(low)} to {seconds(high)}"


def row_time(step: StepTime | None, total: TotalTime | None) -> dict[str, str]:
    """For a row of the method table."""
    return {
        "step": seconds(step.seconds) if step else MISSING,
        "total": f"{whole(total.seconds)} in all" if total else "",
    }


def time_card(report: Report, situation: Situation) -> dict[str, Any]:
    """What is known of the time, and what can be tried."""
    row = report.chosen_row
    found = row.prospect if row else None
    if found is None or report.spec is None:
        return {"known": False}
    sentence, source = _not_known(situation), ""
    if found.step is not None:
        sentence, source = _forecast(found.step, found.total), found.step.source
    trial = situation.trial
    return {
        "known": True,
        "sentence": sentence,
        "source": source,
        "trying": _trying(trial, situation),
        "button": _button(report, trial),
        "busy": _busy(situation),
        "tried": _tried(trial.answer) if trial and trial.answer else None,
        "failed": _failure(trial.error) if trial and trial.error else "",
    }


def _forecast(step: StepTime, total: TotalTime | None) -> str:
    words = f"About {seconds(step.seconds)} a step"
    if total is None:
        return f"{words} ({range_of(step.low, step.high)})."
    return f"{words}, {whole(total.seconds)} in all ({_range(total.low, total.high)})."


def _range(low: float, high: float) -> str:
    return f"{whole(low)} to {whole(high)}"


def _not_known(situation: Situation) -> str:
    if situation.unmeasured is not None:
        return f"Time: not known. {_failure(situation.unmeasured)}"
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
        return ""
    is_away = report.model is not None and report.model.kind in ("catalogue", "hub")
    return "Download it and try two steps" if is_away else "Try two steps"


def _busy(situation: Situation) -> str:
    if situation.run is None:
        return ""
    return f"Two steps can be tried once {situation.run} has ended: it holds the computer."


def _tried(answer: TrialAnswer) -> dict[str, Any]:
    total = _range(answer.low_total_seconds, answer.high_total_seconds)
    peak = gib(answer.measured_peak_bytes)
    error = off_by(answer.forecast_bytes, answer.measured_peak_bytes)
    return {
        "time": f"{seconds(answer.seconds_per_step)} a step, {whole(answer.total_seconds)} "
        f"in all ({total}).",
        "memory": f"Tensors took {peak} GiB at the peak; {gib(answer.forecast_bytes)} were "
        f"forecast, {error}.",
        "fits": answer.fits,
        "notices": answer.notices,
    }


def _failure(error: RequestError) -> str:
    text = f"{error.message} {error.advice}".strip()
    return text[:1].upper() + text[1:]
