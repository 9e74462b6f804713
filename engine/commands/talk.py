"""`ask`: one question, one answer."""

from __future__ import annotations

from argparse import Namespace

from engine.commands.output import print_json
from engine.contract.errors import ExitCode, RequestError
from engine.data.cells import is_unicode
from engine.target import find_base, find_target


def ask_command(options: Namespace) -> ExitCode:
    """Answer and exit."""
    _refuse_mistakes(options)
    find = find_base if options.base else find_target
    target = find(options.target, options.runs)

    import torch

    from engine.generate import Sampling, reply_to
    from engine.result import load_target

    loaded = load_target(target, torch.device("cpu"))
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
                "side": "tuned" if target.is_tuned else "base",
            }
        )
    else:
        print(reply.text)
    return ExitCode.DONE


def _refuse_mistakes(options: Namespace) -> None:
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
