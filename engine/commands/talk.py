"""`ask`: one question, one answer."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError
from engine.contract.model_source import is_adapter_folder, resolve_model
from engine.contract.run_dir import RunDir, find_run
from engine.data.cells import is_unicode


def ask_command(options: Namespace) -> ExitCode:
    """Answer and exit."""
    if not options.prompt.strip():
        raise RequestError("PROMPT", "the question is empty.", "Write one.")
    if not 0 <= options.temperature <= 10:
        raise RequestError(
            "--temperature", "it must be between 0 and 10.", "Use a number from 0 to 10."
        )
    if options.max_new_tokens < 1:
        raise RequestError("--max-new-tokens", "it must be 1 or more.", "Use a whole number.")
    if not 0 <= options.seed < 2**63:
        raise RequestError(
            "--seed", f"it must be between 0 and {2**63 - 1}.", "Use a smaller number, from 0."
        )
    for field, text in (("PROMPT", options.prompt), ("--system", options.system)):
        if not is_unicode(text):
            raise RequestError(field, "it is not UTF-8 text.", "Write it as UTF-8.")
    folder, side = _side(options)

    import torch

    from engine.generate import Sampling, reply_to
    from engine.result import load_result

    loaded = load_result(folder, torch.device("cpu"))
    messages = [{"role": "user", "content": options.prompt}]
    if options.system:
        messages.insert(0, {"role": "system", "content": options.system})
    sampling = Sampling(options.seed, options.temperature, options.max_new_tokens)
    reply = reply_to(loaded.model, loaded.tokenizer, messages, sampling)
    if options.json:
        print_json(
            {
                "text": reply.text,
                "num_tokens": reply.num_tokens,
                "seconds": round(reply.seconds, 3),
                "side": side,
            }
        )
    else:
        print(reply.text)
    return ExitCode.DONE


def _side(options: Namespace) -> tuple[Path, str]:
    """The folder to load, and whether it is the base or the tuned model."""
    run = _run(options)
    if run is not None and not options.base:
        if not run.has_export:
            raise RequestError(
                "TARGET", f"{run.name} has no result yet.", "Let it finish, or add --base."
            )
        return run.export, "tuned"
    source, revision = (
        (run.spec().model.source, run.spec().model.revision) if run else (options.target, None)
    )
    reference = resolve_model(source)
    if reference.folder is not None and is_adapter_folder(reference.folder):
        return reference.folder, "tuned"

    from engine.model import fetch_model

    return fetch_model(reference, revision), "base"


def _run(options: Namespace) -> RunDir | None:
    try:
        return find_run(options.target, options.runs)
    except RequestError:
        return None
