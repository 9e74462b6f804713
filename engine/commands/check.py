"""`check`: what a dataset is, what is wrong with it by line, and what the model sees of it."""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError
from engine.contract.model_source import resolve_model
from engine.contract.spec import DataSpec, RunSpec
from engine.contract.spec_file import validate_spec

SHOWN_REFUSALS = 10
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR = 40  # characters


def check_command(options: Namespace) -> ExitCode:
    """Read everything that training would, and say what it is."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    spec = _spec(options)
    for name, value in (
        ("--first-example", options.first_example),
        ("--num-examples", options.num_examples),
    ):
        if value < 0:
            raise RequestError(name, "it must not be below 0.", "Use a whole number from 1.")
    folder = _tokenizer_folder(spec)

    from engine.data.check import NOTHING_FOUND, report
    from engine.data.shown_examples import shown_examples
    from engine.data.tokenized import tokenize_data
    from engine.tokenizer import load_tokenizer

    tokenizer, template_added = load_tokenizer(folder)
    length = min(spec.train.sequence_length, _context(folder) or spec.train.sequence_length)
    try:
        with tqdm(unit=" rows", disable=not sys.stderr.isatty(), leave=False) as bar:
            data = tokenize_data(spec.data, tokenizer, length, lambda number: _at(bar, number))
    except RequestError as error:
        if not options.json:
            raise
        print_json({**NOTHING_FOUND, **_what_is_there(spec.data), "error": error.as_json()})
        return ExitCode.BAD_REQUEST
    document = report(spec.data, data)
    document["template"] = "default" if template_added else "model"
    first, count = options.first_example or 1, options.num_examples
    document["examples"] = shown_examples(spec.data, data, tokenizer, first, count) if count else []
    document["error"] = None
    if options.json:
        print_json(document)
    else:
        _print(document)
    return ExitCode.DONE


def _spec(options: Namespace) -> RunSpec:
    """The options as the fields of a spec, so that mistakes are told alike."""
    data = {
        "source": options.data,
        "format": options.format,
        "columns": _columns(options.columns),
        "encoding": options.encoding,
        "config": options.config,
        "split": options.split,
        "eval_percent": options.eval_percent,
        "max_rows": options.max_rows,
        "train_on": options.train_on,
    }
    return validate_spec(
        {
            "model": {"source": options.model},
            "data": {key: value for key, value in data.items() if value is not None},
            "method": {"kind": "qft"},
            "train": {"sequence_length": options.sequence_length},
        }
    )


def _at(bar: Any, number: int) -> None:
    """Show how far the check is; lines may hold no row, so the bar is set and not counted."""
    bar.n = number
    bar.update(0)


def _what_is_there(data: DataSpec) -> dict[str, Any]:
    """Rows and columns of data that cannot be learned from, so that a person can mend it."""
    from engine.data.check import rows_found
    from engine.data.source import DatasetReader

    try:
        reader = DatasetReader(data)
        for _ in reader:
            pass
    except RequestError:
        return {}
    return rows_found(data, reader.found())


def _columns(given: list[str] | None) -> dict[str, str] | None:
    pairs = [one.partition("=") for one in given or ()]
    for role, equals, column in pairs:
        if not (role and equals and column):
            raise RequestError(
                "--columns", f"{role!r} names no column.", "Write ROLE=COLUMN, as prompt=Question."
            )
    return {role: column for role, _, column in pairs} or None


def _tokenizer_folder(spec: RunSpec) -> Path:
    """Where the model's tokenizer is; that of a hub model is downloaded, without the weights."""
    reference = resolve_model(spec.model.source)
    if reference.folder is not None:
        return reference.folder
    from engine.hub import download

    assert reference.hub_id is not None
    return download(reference.hub_id, spec.model.revision, weights=False)


def _context(folder: Path) -> int | None:
    """The longest sequence that the model was made for, as its config says."""
    with suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_bytes())
        if isinstance(config, dict):
            found = [config.get(key) for key in _CONTEXT_KEYS]
            return next((one for one in found if isinstance(one, int) and one > 0), None)
    return None


def _print(document: dict[str, Any]) -> None:
    held = f", {document['encoding']}" if document["encoding"] else ""
    columns = ", ".join(f"{role}: {name}" for role, name in document["columns"].items())
    print(f"{document['container']}{held}, read as {document['format']}", end="")
    print(f" ({columns})" if columns else "")
    copies = document["duplicates"]
    print(
        f"{_rows(document['rows'])}, {document['usable']:,} used, "
        f"{document['refused_count']:,} left out, {copies:,} cop{'y' if copies == 1 else 'ies'}"
    )
    tokens = document["tokens"]
    print(
        f"tokens: half have up to {tokens['p50']:,}, 95 % up to {tokens['p95']:,}, the longest "
        f"{tokens['max']:,}; {document['truncated_percent']:g} % are cut at "
        f"{document['sequence_length']:,}"
    )
    print(
        f"an epoch: {_rows(document['training_rows'])}, {document['epoch_tokens']:,} tokens, "
        f"{document['epoch_trained_tokens']:,} of them trained; "
        f"{_rows(document['held_out_rows'])} held out"
    )
    _print_histogram(document["histogram"])
    for sentence in document["warnings"]:
        print(sentence)
    for one in document["refused"][:SHOWN_REFUSALS]:
        snippet = _printable(" ".join(one["snippet"].split()))
        print(f"  {document['unit']} {one['row']:,}: {one['reason']}: {snippet[:60]}")
    for example in document["examples"]:
        _print_example(example, document["unit"])


def _print_histogram(histogram: dict[str, list[int]]) -> None:
    edges, counts = histogram["edges"], histogram["counts"]
    most = max(counts, default=0)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        whole, part = divmod(round(8 * _BAR * count / max(1, most)), 8)
        bar = "█" * whole + _BLOCKS[part].strip()
        print(f"  {low:>7,} to {high - 1:>7,} {count:>9,} {bar}".rstrip())


def _print_example(example: dict[str, Any], unit: str) -> None:
    """Trained words stand between double angle quotes."""
    print(
        f"example {example['number']:,} ({unit} {example['row']:,}): {example['tokens']:,} tokens, "
        f"{example['trained']:,} trained{', cut' if example['cut'] else ''}"
    )
    text = "".join(
        f"«{piece['text']}»" if piece["trained"] else piece["text"] for piece in example["pieces"]
    ).replace("»«", "")
    print(re.sub(r"^", "  ", _printable(text), flags=re.MULTILINE))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _printable(text: str) -> str:
    """Characters that a terminal would obey become a dot."""
    return "".join(one if one in "\n\t" or one.isprintable() else "\u00b7" for one in text)
