"""How fast and how lean a dataset is checked: `python -m benchmarks.check_speed [--save FILE]`.

Each check runs in a process of its own that has loaded the starter's tokenizer and nothing else;
timed from there to the whole report, with the token store of no check before. Rows are invented
chats of the length of the bundled samples' and of three times that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.contract.durable import write_json

WORDS = [*"abcdefghijklmnopqrstuvwxyz", "the", "of", "and", "what", "harbour", "morning", "letters"]
REPEATS = 5

DRIVER = """
import json, resource, sys, time
from engine.contract.bundled import STARTER
from engine.contract.spec import DataSpec
from engine.data.check import report
from engine.data.tokenized import tokenize_data
from engine.tokenizer import load_tokenizer
tokenizer, _ = load_tokenizer(STARTER)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.perf_counter()
spec = DataSpec(source=sys.argv[1])
told = report(spec, tokenize_data(spec, tokenizer, 256))
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, (peak - before) << 10, told["usable"], told["tokens"]["total"]]))
"""


def write_rows(file: Path, count: int, num_words: int) -> None:
    """Invented chats, one object a line, all different."""
    chance = random.Random(0)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(count):
            asked, said = (
                " ".join(chance.choices(WORDS, k=max(1, round(size * chance.uniform(0.5, 1.5)))))
                for size in (num_words // 3, num_words - num_words // 3)
            )
            row = {"instruction": f"{number}: {asked}?", "output": f"{said}."}
            lines.write(json.dumps(row) + "\n")


def check(file: Path) -> dict[str, Any]:
    """One check in a fresh process with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(file)],
            env={**os.environ, "XDG_CACHE_HOME": cache, "TOKENIZERS_PARALLELISM": "true"},
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds, grown, usable, tokens = json.loads(done.stdout)
    return {"seconds": seconds, "grown_bytes": grown, "usable": usable, "tokens": tokens}


def measured(count: int, num_words: int, repeats: int) -> dict[str, Any]:
    """The median of several checks of the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, count, num_words)
        size = file.stat().st_size
        found = [check(file) for _ in range(repeats)]
    assert all(one["usable"] == count for one in found)
    seconds = [one["seconds"] for one in found]
    return {
        "rows": count,
        "file_bytes": size,
        "tokens": found[0]["tokens"],
        "seconds": round(statistics.median(seconds), 2),
        "seconds_all": [round(one, 2) for one in seconds],
        "memory_grown_bytes": max(one["grown_bytes"] for one in found),
    }


def main() -> None:
    """Measure and print; save with `--save`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--million", action="store_true", help="a million rows, too: minutes")
    options = parser.parse_args()
    cases = [(50_000, 24, REPEATS), (50_000, 72, REPEATS)]
    if options.million:
        cases.append((1_000_000, 24, 1))
    results = [measured(*case) for case in cases]
    for one in results:
        print(
            f"{one['rows']:,} rows, {one['file_bytes'] / 1e6:.0f} MB, {one['tokens']:,} tokens: "
            f"{one['seconds']} s, {one['memory_grown_bytes'] / 2**20:.0f} MiB more memory"
        )
    if options.save:
        hardware = f"{os.cpu_count()}-core {platform.machine()} CPU"
        write_json(options.save, {"hardware": hardware, "results": results})


if __name__ == "__main__":
    main()
