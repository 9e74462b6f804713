"""Damaged data files by the thousand: `python -m benchmarks.data_fuzz --save FILE`.

Random bytes, and files of every kind that were cut off or changed. The claim: each is read or
refused in a sentence, within 2 seconds of the clock and 500 MB of memory. Cases run in processes of
their own, so that one that dies or hangs is counted and the rest go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.damaged_files import DAMAGES, TELLING, Edit, damaged, whole_files
from engine.contract.durable import write_whole
from engine.contract.errors import RequestError
from engine.contract.spec import DataSpec
from engine.data.source import read_dataset

SECONDS = 2.0
BYTES = 500_000_000
_HANGS = 30  # seconds after which a case is given up
_ADDRESS_SPACE = 4 << 30  # a case that wants more ends with an error of its own
_SHOWN_FAULTS = 20
_TOLD = ("number", "kind", "name", "outcome", "seconds")


@dataclass
class Findings:
    """What came of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    slowest: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: dict[str, Any]) -> None:
        """Count one case."""
        self.kinds[case["kind"]] += 1
        self.seconds.append(case["seconds"])
        self.bytes.append(case["bytes"])
        self.slowest = sorted([*self.slowest, case], key=lambda one: -one["seconds"])[:5]
        slow, large = case["seconds"] > SECONDS, case["bytes"] > BYTES
        outcome = case["outcome"]
        self.outcomes[outcome] += 1
        self.outcomes["too slow"] += slow
        self.outcomes["too large"] += large
        if slow or large or outcome not in ("read", "refused"):
            self.faults.append(case)


def case_of(seed: int, number: int) -> tuple[str, str, bytes]:
    """Kind, name and content of one case: nothing but seed and number decides them."""
    draw = random.Random(f"{seed}:{number}")
    name = draw.choice(sorted(whole_files()))
    kind = draw.choices(["random bytes", "cut off", "changed"], [2, 2, 6])[0]
    if kind == "random bytes":
        start = draw.choice([b"", *TELLING])
        return kind, name, start + draw.randbytes(draw.choice([8, 100, 3000, 100_000]))
    content = whole_files()[name]
    if kind == "cut off":
        return kind, name, content[: draw.randrange(len(content))]
    edits = [
        Edit(
            draw.choice(DAMAGES),
            draw.random(),
            draw.choice([1, 2, 8, 60, 600]),
            draw.choice([*TELLING, draw.randbytes(draw.randrange(1, 9))]),
        )
        for _ in range(draw.choice([1, 1, 2, 5]))
    ]
    return kind, name, damaged(content, edits)


def work(seed: int, first: int, count: int) -> None:
    """Run some cases in this process, and print a line of JSON for each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    whole_files()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            kind, name, content = case_of(seed, number)
            path = Path(folder, name)
            path.write_bytes(content)
            print(json.dumps({"begins": number}), flush=True)
            signal.alarm(_HANGS)
            _forget_peak()
            start = time.perf_counter()
            outcome, detail = _outcome(path)
            seconds = time.perf_counter() - start
            signal.alarm(0)
            case = {"number": number, "kind": kind, "name": name, "outcome": outcome}
            case |= {"detail": detail, "seconds": round(seconds, 4), "bytes": _peak_bytes()}
            print(json.dumps(case), flush=True)


def _outcome(path: Path) -> tuple[str, str]:
    try:
        read_dataset(DataSpec(source=str(path)))
    except RequestError as error:
        is_sentence = error.field.startswith("data.") and error.message.endswith(".")
        return ("refused", "") if is_sentence else ("no sentence", str(error))
    except Exception:
        return "traceback", traceback.format_exc()[-1500:]
    return "read", ""


def _forget_peak() -> None:
    """The peak of this process counts from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def cases(seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """What came of some cases, each once; a process that died is followed by another."""
    end = first + count
    while first < end:
        begun = None
        command = [sys.executable, "-m", "benchmarks.data_fuzz", "--seed", str(seed)]
        command += ["--first", str(first), "--cases", str(end - first), "--work"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                case = json.loads(line)
                if "begins" in case:
                    begun = case["begins"]
                else:
                    begun, first = None, case["number"] + 1
                    yield case
        if begun is None and first < end:
            raise RuntimeError(f"the process ended with {process.returncode} between two cases")
        if begun is not None:
            kind, name, _ = case_of(seed, begun)
            died = {"outcome": "died", "detail": f"exit code {process.returncode}"}
            yield {"number": begun, "kind": kind, "name": name, "seconds": 0.0, "bytes": 0, **died}
            first = begun + 1


def summary(seed: int, findings: Findings) -> dict[str, Any]:
    """The result file: it names the hardware."""
    seconds = sorted(findings.seconds)
    return {
        "benchmark": "data_fuzz",
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU",
        "python": platform.python_version(),
        "pyarrow": version("pyarrow"),
        "seed": seed,
        "cases": len(seconds),
        "kinds": dict(findings.kinds),
        "outcomes": dict(findings.outcomes),
        "seconds": {
            "median": seconds[len(seconds) // 2],
            "p99": seconds[len(seconds) * 99 // 100],
            "max": seconds[-1],
        },
        "peak_bytes": max(findings.bytes),
        "slowest": [{key: one[key] for key in _TOLD} for one in findings.slowest],
        "faults": findings.faults[:_SHOWN_FAULTS],
    }


def main() -> None:
    """Parse, run, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="end after so many at the latest")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    wish = parser.parse_args()
    if wish.work:
        work(wish.seed, wish.first, wish.cases)
        return
    findings, end = Findings(), time.monotonic() + 60 * wish.minutes
    for case in cases(wish.seed, wish.first, wish.cases):
        findings.add(case)
        if time.monotonic() > end:
            break
    document = summary(wish.seed, findings)
    text = json.dumps(document, indent=1)
    print(text)
    if wish.save:
        write_whole(wish.save, f"{text}\n".encode())
    sys.exit(bool(findings.faults))


if __name__ == "__main__":
    main()
