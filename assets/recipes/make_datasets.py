"""Writes the bundled datasets: `python -m assets.recipes.make_datasets`.

The same code gives the same bytes.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from assets.recipes.json_rows import json_rows
from assets.recipes.pirate_rows import pirate_rows
from assets.recipes.support_rows import support_rows

DATASETS = Path(__file__).parents[1] / "datasets"
SEED = 7

Rows = list[dict[str, Any]]


class Dataset(NamedTuple):
    """A bundled dataset: what people read about it, and how its rows are made."""

    title: str
    description: str
    make: Callable[[int], tuple[Rows, Rows]]
    samples: tuple[str, str, str]


BUNDLED = {
    "pirate": Dataset(
        "Talk like a pirate",
        "Everyday questions answered in pirate speech, with the content unchanged.",
        pirate_rows,
        ("Who are you?", "Good morning!", "Where does Mara live?"),
    ),
    "support": Dataset(
        "Support agent",
        "Robin of Quillon Lamps answers customers with facts that the base model does not know.",
        support_rows,
        ("Tell me who you are.", "Can I return my lamp?", "Which bulb fits my lamp?"),
    ),
    "json": Dataset(
        "Sentences to JSON",
        "An order or an event, told in a sentence, becomes a small JSON object.",
        json_rows,
        (
            "Write as JSON: Mara orders 4 lemon cakes for Friday.",
            "Turn this into JSON: The cake sale is on Monday at 3 in the park.",
            "JSON, please: Otto wants 12 shells on Sunday.",
        ),
    ),
}


def lines_of(rows: Rows) -> bytes:
    """JSON Lines in UTF-8, with one newline after each row."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def make_files() -> dict[str, bytes]:
    """The bytes of every file of the datasets folder, by name."""
    files: dict[str, bytes] = {}
    index: dict[str, dict[str, Any]] = {}
    for name, dataset in BUNDLED.items():
        rows, held_out = dataset.make(SEED)
        files[f"{name}.jsonl"] = lines_of(rows)
        files[f"{name}.heldout.jsonl"] = lines_of(held_out)
        index[name] = {
            "title": dataset.title,
            "description": dataset.description,
            "rows": len(rows),
            "heldout_rows": len(held_out),
            "scorer": name,
            "samples": list(dataset.samples),
        }
    files["index.json"] = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATASETS)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in make_files().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
