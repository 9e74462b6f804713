"""The GPU suite's result as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.published_memory import PUBLISHED

_GIB = 1 << 30
_CLAIM_GEOMETRY, _CLAIM_GIB, _CLAIM_RATIO = "llama-2-7b", 16.0, 1.15
_HEADER = (
    "model",
    "method",
    "tokens",
    "outcome",
    "peak",
    "reserved",
    "card",
    "forecast",
    "published",
    "tokens/s",
    "step s",
)
Line = Mapping[str, Any]


def report(result: Mapping[str, Any]) -> str:
    """Checks, claim, steps, caps and what was not done, in that order; sizes in GiB.

    `peak` and `forecast` are of tensors, `reserved` of torch's allocator, `card` of everything on
    the card while the job ran. `prepare` is the peak while the method takes a model over from main
    memory. A limit holds for the allocator.

    Args:
        result: As `benchmarks.gpu_suite` writes it.
    """
    lines: list[Line] = result["lines"]
    of_kind = {
        kind: [line for line in lines if line["kind"] == kind]
        for kind in ("check", "claim", "steps", "caps")
    }
    unmade = [line for line in lines if line["kind"] == "checks" and line["outcome"] != "done"]
    parts = [
        f"{result['hardware']}, driver {result['driver']}, torch {result['torch']}, "
        f"transformers {result['transformers']}, commit {result['commit']}, {result['date']}, "
        f"{result['seconds']} s",
        _checks(of_kind["check"], unmade),
        _claim(of_kind["claim"]),
        _table(_HEADER, [_row(line) for line in of_kind["steps"]]),
        _caps(of_kind["caps"]),
        _published(of_kind["steps"]),
        _counts(lines),
    ]
    return "\n\n".join(part for part in parts if part)


def _checks(checks: Sequence[Line], unmade: Sequence[Line]) -> str:
    words = {True: "ok", False: "FAILED", None: "skipped"}
    rows = [(words[check["ok"]], check["name"], check["detail"]) for check in checks]
    rows += [(line["outcome"], "checks", line["reason"]) for line in unmade]
    return _table(("check", "of", "found"), rows) if rows else ""


def _claim(lines: Sequence[Line]) -> str:
    """What the project promises of QFT on a 7B model; the last line holds most."""
    if not lines:
        return ""
    last = lines[-1]
    if "batch_size" not in last:
        return f"claim: {last['outcome']}: {last['reason']}"
    what = f"claim, {last['geometry']}, {last['batch_size']} x {last['length']}: QFT balanced"
    peak = last["qft_allocated_bytes"]
    of_claim = last["geometry"] == _CLAIM_GEOMETRY  # nothing is promised of another
    words = f"{what} peak not measured"
    if peak is not None:
        within = _verdict(peak < _CLAIM_GIB * _GIB, of_claim)
        words = f"{what} peak {_gib(peak)} GiB (under {_CLAIM_GIB:.0f}, {within})"
    if last["outcome"] != "done":
        return f"{words}; step times: {last.get('reason', 'not measured')}"
    ratio = last["ratio"]
    return (
        f"{words}; step {last['qft_step_s']:.4f} s, AdamW in bfloat16 {last['adamw_step_s']:.4f} s,"
        f" ratio {ratio:.2f} (at most {_CLAIM_RATIO}, {_verdict(ratio <= _CLAIM_RATIO, of_claim)}),"
        f" medians of {last['rounds']} in turns"
    )


def _verdict(kept: bool, promised: bool) -> str:
    if not promised:
        return "nothing is promised here"
    return "kept" if kept else "NOT kept"


def _row(line: Line) -> tuple[str, ...]:
    published = _published_of(line)
    return (
        line["geometry"],
        line["method"],
        f"{line['batch_size']} x {line['length']}",
        _outcome(line),
        _gib(line.get("allocated_bytes")),
        _gib(line.get("reserved_bytes")),
        _gib(line.get("card_bytes")),
        _gib(line.get("forecast_bytes")),
        "" if published is None else f"{published.gib:.2f}",
        "" if "tokens_per_s" not in line else f"{line['tokens_per_s']:.0f}",
        "" if "step_s" not in line else f"{line['step_s']:.4f}",
    )


def _outcome(line: Line) -> str:
    return f"{line['outcome']}: {line['reason']}" if "reason" in line else line["outcome"]


def _caps(lines: Sequence[Line]) -> str:
    rows = [
        (
            line["geometry"],
            line["method"],
            f"{line['batch_size']} x {line['length']}",
            f"{line['cap_gib']:.0f}",
            _outcome(line),
            _gib(line.get("allocated_bytes")),
            _gib(line.get("reserved_bytes")),
            _gib(line.get("prepare_peak_bytes")),
            _gib(line.get("forecast_bytes")),
        )
        for line in lines
    ]
    header = (
        "model",
        "method",
        "tokens",
        "limit",
        "outcome",
        "peak",
        "reserved",
        "prepare",
        "forecast",
    )
    # Without a peak there was no GPU, and so no limit either.
    measured = any(line.get("allocated_bytes") is not None for line in lines)
    note = "" if measured or not rows else "limits hold on a GPU only; there was none\n"
    return note + _table(header, rows) if rows else ""


def _published_of(line: Line) -> Any:
    key = (line["geometry"], line["method"], line["batch_size"], line["length"])
    return PUBLISHED.get(key)


def _published(lines: Sequence[Line]) -> str:
    """Where the published figures of the table come from."""
    found = [one for line in lines if (one := _published_of(line)) is not None]
    return "\n".join(f"published {one.gib:.2f}: {one.source}" for one in found)


def _counts(lines: Sequence[Line]) -> str:
    """How much of everything, so that nothing is missed silently."""
    counted: Counter[str] = Counter()
    for line in lines:
        if line["kind"] == "check":
            counted["checks " + {True: "ok", False: "FAILED", None: "skipped"}[line["ok"]]] += 1
        elif line["kind"] in ("steps", "caps"):
            counted[f"{line['kind']} {line['outcome']}"] += 1
    return "; ".join(f"{count} {what}" for what, count in sorted(counted.items()))


def _gib(size: int | None) -> str:
    return "" if size is None else f"{size / _GIB:.2f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest entry."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )
