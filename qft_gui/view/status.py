"""A status as a shape, a word and a colour; never by colour alone."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract.status import Status
from engine.memory.estimate import Forecast, Verdict
from qft_gui.view.numbers import gib


@dataclass(frozen=True)
class Mark:
    """A symbol of the sprite, the tone of its colour, and the word beside it."""

    shape: str
    tone: str
    word: str


STATUS_MARKS: dict[Status, Mark] = {
    "queued": Mark("run", "", "Waiting"),
    "starting": Mark("run", "live", "Starting"),
    "running": Mark("run", "live", "Running"),
    "saving": Mark("run", "live", "Saving"),
    "stopping": Mark("run", "warn", "Stopping"),
    "finished": Mark("ok", "good", "Finished"),
    "stopped": Mark("stop", "", "Stopped"),
    "failed": Mark("fail", "bad", "Failed"),
    "out_of_memory": Mark("fail", "bad", "Out of memory"),
    "diverged": Mark("fail", "bad", "Diverged"),
    "interrupted": Mark("fail", "warn", "Interrupted"),
}

VERDICT_MARKS: dict[Verdict, Mark] = {
    "fits": Mark("ok", "good", "Fits"),
    "tight": Mark("tight", "warn", "Tight"),
    "too_large": Mark("no", "bad", "Does not fit"),
    "unknown": Mark("tight", "", "Unknown"),
}
WAITING = Mark("tight", "", "Waits")


def verdict_mark(forecast: Forecast) -> Mark:
    """The verdict with the number that matters most to it."""
    mark = VERDICT_MARKS[forecast.verdict]
    if forecast.free_bytes is None or forecast.verdict == "unknown":
        return mark
    if forecast.verdict == "fits":
        spare = gib(forecast.free_bytes - forecast.high_bytes)
        return Mark(mark.shape, mark.tone, f"Fits, {spare} GiB to spare")
    if forecast.verdict == "tight":
        return Mark(mark.shape, mark.tone, "Tight: it may run out")
    short = gib(forecast.total_bytes - forecast.free_bytes)
    return Mark(mark.shape, mark.tone, f"Does not fit, {short} GiB short")
