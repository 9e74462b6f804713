"""`eval`: loss and hits of a model or a run on data, and how far training moved them."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from engine.commands.output import print_json, print_mistakes
from engine.contract.device_lock import claim_device
from engine.contract.errors import ExitCode, RequestError
from engine.contract.run_dir import RunDir, find_run
from engine.memory.device_key import device_key
from engine.target import Target, find_base, find_target

if TYPE_CHECKING:
    import torch

    from engine.judgement import Judgement
    from engine.paired_difference import Difference

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")


def eval_command(options: Namespace) -> ExitCode:
    """Measure, and print four lines or one document."""
    _refuse_mistakes(options)
    if options.harness is not None and not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # the harness draws its bars everywhere
    find = find_base if options.base else find_target
    target = find(options.target, options.runs)
    device = _device(options.device)

    from engine.out_of_memory import is_out_of_memory

    try:
        with claim_device(device_key(str(device)), "judging", target.name):
            if options.harness is not None:
                return _run_harness(options, target, device)
            return _judge(options, target, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = "Use a smaller --sequence-length, or close other programs."
        print_mistakes([RequestError("TARGET", "memory ran out.", advice)], as_json=options.json)
        return ExitCode.OUT_OF_MEMORY


def _refuse_mistakes(options: Namespace) -> None:
    for name, value in (
        ("--max-rows", options.max_rows),
        ("--sequence-length", options.sequence_length),
    ):
        least = 8 if name == "--sequence-length" else 1
        if value is not None and value < least:
            raise RequestError(name, f"it must be {least} or more.", "Use a larger number.")
    if options.harness is None:
        if options.tasks_folder is not None or options.chat_template:
            name = "--chat-template" if options.chat_template else "--tasks-folder"
            raise RequestError(name, "it belongs to --harness.", "Name the tasks, too.")
    elif options.data is not None or options.sequence_length is not None:
        name = "DATA" if options.data is not None else "--sequence-length"
        raise RequestError(name, "the tasks of --harness have their own.", "Leave it out.")


def _device(wish: str) -> torch.device:
    if not _DEVICE.fullmatch(wish):
        raise RequestError("--device", f"{wish} is no device.", "Use auto, cpu or cuda:0.")

    from engine.model import choose_torch_device

    try:
        return choose_torch_device(wish)
    except RequestError as error:
        raise RequestError("--device", error.message, error.advice) from error


def _judge(options: Namespace, target: Target, device: torch.device) -> ExitCode:
    from engine.data_to_judge import choose_data
    from engine.judgement import judge

    run = _run_behind(options, target)
    data = choose_data(options.data, run, options.sequence_length, options.max_rows)
    with _Bars() as progress:
        found = judge(target, data, device, progress)
    if options.json:
        print_json(found.as_json())
    else:
        print("\n".join(_lines(found)))
    return ExitCode.DONE


def _run_behind(options: Namespace, target: Target) -> RunDir | None:
    """The run whose rows count, also where only its base is measured."""
    if not options.base:
        return target.run
    try:
        return find_run(options.target, options.runs)
    except RequestError:  # no run, or a checkpoint of one
        return find_target(options.target, options.runs).run


def _run_harness(options: Namespace, target: Target, device: torch.device) -> ExitCode:
    from engine.harness import run_tasks, split_tasks

    tasks = split_tasks(options.harness)
    found = run_tasks(
        target,
        tasks,
        device,
        folder=options.tasks_folder,
        limit=options.max_rows,
        chat_template=options.chat_template,
    )
    if options.json:
        print_json(found.as_json())
    else:
        print("\n".join(found.lines()))
    return ExitCode.DONE


def _lines(found: Judgement) -> list[str]:
    """What was measured, loss, difference, hits: four lines, fewer where there is one side."""
    document = found.as_json()
    data, scorer = document["data"], document["scorer"]
    tokens = document["num_target_tokens"]
    rows = "the held-out part of " if found.data.held_out else ""
    lines = [
        f"{found.name} on {rows}{data['source']}: {data['num_examples']:,} examples of at most "
        f"{data['sequence_length']:,} tokens, {tokens:,} tokens predicted"
    ]
    before, after = document["base"], document["tuned"]
    if before and after:
        lines.append(
            f"loss {_moved(before, after, 'loss_nats', 4)} nats per token, "
            f"perplexity {_moved(before, after, 'perplexity', 2)}"
        )
        lines.append(_difference_line(found.difference))
    else:
        own = f"loss {document['loss_nats']:.4f} nats per token, perplexity "
        lines.append(own + _number(document["perplexity"], 2))
    if scorer:
        lines.append(_scorer_line(scorer))
    return lines


def _moved(before: dict[str, Any], after: dict[str, Any], key: str, digits: int) -> str:
    return f"{_number(before[key], digits)} before, {_number(after[key], digits)} after"


def _number(value: float | None, digits: int) -> str:
    return "beyond any number" if value is None else f"{value:.{digits}f}"


def _difference_line(difference: Difference | None) -> str:
    from engine.paired_difference import LEAST_ROWS

    assert difference is not None
    interval = difference.interval
    if interval is None:
        return (
            f"difference {difference.value:+.4f} nats; of fewer than {LEAST_ROWS} rows there is no "
            "interval"
        )
    direction = "lower" if difference.value < 0 else "higher"
    verdict = f"clearly {direction}" if difference.is_clear else "no clear difference"
    return (
        f"difference {difference.value:+.4f} nats, with 95 % confidence {interval.low:+.4f} to "
        f"{interval.high:+.4f}: {verdict}"
    )


def _scorer_line(scorer: dict[str, Any]) -> str:
    total = scorer["num_prompts"]
    if scorer["difference"] is None:
        hits = scorer["hits_before"] if scorer["hits_after"] is None else scorer["hits_after"]
        return f"scorer {scorer['name']}: {hits} of {total} prompts"
    return (
        f"scorer {scorer['name']}: {scorer['hits_before']} of {total} prompts before, "
        f"{scorer['hits_after']} after; {scorer['difference']:+.1f} points, with 95 % confidence "
        f"{scorer['low']:+.1f} to {scorer['high']:+.1f}"
    )


class _Bars:
    """Progress on standard error; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, what: str, total: int | None) -> None:
        """One bar after the other."""
        from tqdm import tqdm

        self._close()
        if total is not None:
            # None: only on a terminal.
            self._bar = tqdm(total=total, desc=what, file=sys.stderr, disable=None, leave=False)

    def advance(self, count: int) -> None:
        """On the bar there is."""
        self._bar.update(count)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
