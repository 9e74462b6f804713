"""`export`: a run's result in a form that other programs load."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from engine.commands.output import print_json, print_mistakes
from engine.contract.errors import ExitCode, RequestError
from engine.contract.paths import typed_path
from engine.contract.run_dir import find_run
from engine.memory.units import gib

FORMS = ("hf", "adapter", "gguf")
TYPES = ("f16", "q8_0")


def export_command(options: Namespace) -> ExitCode:
    """Write the folder, and say what is in it."""
    _check(options)
    run = find_run(options.run, options.runs)
    out = typed_path(options.out)

    from engine.exports.new_folder import check_out
    from engine.exports.result_folder import result_of

    check_out(out, run.path)
    result = result_of(run)

    # Only now: a mistake is told before anything heavy is imported.
    from engine.exports import forms
    from engine.out_of_memory import is_out_of_memory

    try:
        if options.to == "hf":
            exported = forms.export_model_folder(result, out)
        elif options.to == "adapter":
            exported = forms.export_adapter(result, out)
        else:
            exported = forms.export_gguf(result, out, options.type or "q8_0")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        mistake = RequestError("RUN", "memory ran out.", "Close other programs.")
        print_mistakes([mistake], as_json=options.json)
        return ExitCode.OUT_OF_MEMORY
    _say(options, out, exported)
    return ExitCode.DONE


def _check(options: Namespace) -> None:
    if options.to not in FORMS:
        raise RequestError(
            "--to", f"there is no form {options.to!r}.", f"Use one of {', '.join(FORMS)}."
        )
    if options.type is not None and options.type not in TYPES:
        raise RequestError(
            "--type", f"there is no type {options.type!r}.", f"Use one of {', '.join(TYPES)}."
        )
    if options.type is not None and options.to != "gguf":
        raise RequestError("--type", "it is for --to gguf only.", "Leave it out.")
    if not options.out.strip() or "\0" in options.out:
        raise RequestError("--out", "no folder is named.", "Name one that does not exist yet.")


def _say(options: Namespace, out: Path, exported: Any) -> None:
    files = {file.name: file.stat().st_size for file in sorted(out.iterdir()) if file.is_file()}
    if not options.json:
        print(f"{out}: {len(files)} files, {gib(sum(files.values()))}")
        for note in exported.notes:
            print(note)
        return
    merge = exported.merge
    print_json(
        {
            "out": str(out),
            "to": options.to,
            "files": files,
            "total_bytes": sum(files.values()),
            "merge": None
            if merge is None
            else {
                "num_prompts": merge.num_prompts,
                "largest_difference": merge.largest,
                "largest_logit": merge.scale,
                "same_next_word": merge.same_word,
            },
            "notes": list(exported.notes),
            **exported.details,
        }
    )
