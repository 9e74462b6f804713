"""`export`: a run's result, or one of its checkpoints, in a form that other programs load."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.output import print_json, print_mistakes
from engine.contract.errors import ExitCode, RequestError
from engine.contract.paths import typed_path
from engine.contract.run_dir import RunDir, find_run
from engine.memory.units import gib
from engine.target import checkpoint_of

if TYPE_CHECKING:
    from engine.exports.forms import Exported
    from engine.exports.result_folder import ResultFolder

FORMS = ("hf", "adapter", "gguf")
TYPES = ("f16", "q8_0")


def export_command(options: Namespace) -> ExitCode:
    """Write the folder, and say what is in it."""
    _check(options)
    checkpoint = checkpoint_of(options.run, options.runs)
    run = checkpoint.run if checkpoint else find_run(options.run, options.runs)
    assert run is not None, "a checkpoint belongs to a run"
    out = typed_path(options.out)
    if options.to == "adapter":
        _refuse_whole_model(run)

    from engine.exports.new_folder import check_out

    check_out(out, run.path)

    # Only now: a mistake is told before anything heavy is imported.
    from engine.exports.result_folder import result_of
    from engine.out_of_memory import is_out_of_memory

    try:
        if checkpoint is None or checkpoint.step is None:
            exported = _exported(options, result_of(run), out)
        else:
            from engine.exports.checkpoint_folder import checkpoint_folder

            with checkpoint_folder(run, checkpoint.step, out) as result:
                exported = _exported(options, result, out)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        mistake = RequestError("RUN", "memory ran out.", "Close other programs.")
        print_mistakes([mistake], as_json=options.json)
        return ExitCode.OUT_OF_MEMORY
    _say(options, out, exported)
    return ExitCode.DONE


def _refuse_whole_model(run: RunDir) -> None:
    kind = run.spec().method.kind
    if kind not in ("lora", "qlora"):
        raise RequestError(
            "--to",
            f"{run.name} was tuned with {kind}, which changes every weight and has no adapter.",
            "Use --to hf or gguf.",
        )


def _exported(options: Namespace, result: ResultFolder, out: Path) -> Exported:
    from engine.exports import forms

    if options.to == "hf":
        return forms.export_model_folder(result, out)
    if options.to == "adapter":
        return forms.export_adapter(result, out)
    return forms.export_gguf(result, out, options.type or "q8_0")


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


def _say(options: Namespace, out: Path, exported: Exported) -> None:
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
