"""`xray`: what the numbers inside a model or a run look like."""

from __future__ import annotations

import sys
from argparse import Namespace

from engine.commands.output import print_json, print_mistakes
from engine.contract.errors import ExitCode, RequestError
from engine.contract.run_dir import RunDir, find_run

MISSING = "–"
HEADER = (
    f"{'':16}{'rms':>10}{'largest':>10}{'kurtosis':>10}{'> 4 rms':>10}{'top 1 %':>10}"
    f"{'row':>10}{'per 32':>10}{'hybrid':>10}"
)


def xray_command(options: Namespace) -> ExitCode:
    """Look, and print a table or the whole answer."""
    run = _run(options)

    from engine.out_of_memory import is_out_of_memory
    from engine.xray import Xray, xray_model, xray_run

    try:
        seen: Xray = (
            xray_run(run, options.data, _tell)
            if run
            else xray_model(options.target, options.data, _tell)
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        mistake = RequestError("TARGET", "memory ran out.", "Close other programs.")
        print_mistakes([mistake], as_json=options.json)
        return ExitCode.OUT_OF_MEMORY
    if options.json:
        print_json(seen.as_json())
        return ExitCode.DONE
    _print_tables(seen.as_json())
    return ExitCode.DONE


def _run(options: Namespace) -> RunDir | None:
    try:
        return find_run(options.target, options.runs)
    except RequestError:
        return None


def _tell(what: str) -> None:
    """Beside the answer: standard output may hold one JSON document and nothing else."""
    print(what, file=sys.stderr, flush=True)


def _print_tables(answer: dict) -> None:
    at_step = "" if answer["step"] is None else f", step {answer['step']:,}"
    data = f", gradients from {answer['data']}" if answer["data"] else ""
    print(f"{answer['name']}: {answer['num_parameters']:,} parameters{at_step}{data}")
    for kind in answer["kinds"]:
        print(f"\n{kind['kind']}, matrices")
        print(HEADER)
        for layer in kind["layers"]:
            print(_line(layer))
    print(
        "\nrms: root of the mean square. > 4 rms, top 1 %: percent of the values, and of the sum of"
    )
    print("squares. row, per 32, hybrid: percent lost by int8 with a scale per row, per 32 values,")
    print("and per 32 with the largest 1 % kept apart.")
    for note in answer["notes"]:
        print(note)


def _line(layer: dict) -> str:
    errors = layer["error_percent"] or {}
    numbers = (
        *(layer[name] for name in ("rms", "largest", "kurtosis", "outlier_percent", "top_percent")),
        *(errors.get(name) for name in ("row", "group", "hybrid")),
    )
    cells = (MISSING if number is None else f"{number:.3g}" for number in numbers)
    return f"{layer['label'][:16]:16}" + "".join(f"{cell:>10}" for cell in cells)
