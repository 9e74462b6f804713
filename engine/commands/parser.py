"""The command line's surface, and what becomes of a mistake."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from engine.commands.output import print_mistakes
from engine.contract.errors import ExitCode, RequestError, RequestErrors, mistakes
from engine.contract.launch import engine_environment
from engine.contract.run_dir import default_runs
from engine.contract.spec import DataSpec, TrainSpec

_COMMANDS = {
    "run": "engine.commands.runs",
    "launch": "engine.commands.runs",
    "resume": "engine.commands.runs",
    "stop": "engine.commands.runs",
    "status": "engine.commands.report",
    "list": "engine.commands.report",
    "estimate": "engine.commands.forecast",
    "inspect": "engine.commands.forecast",
    "check": "engine.commands.check",
    "probe": "engine.commands.probe",
    "measure": "engine.commands.probe",
    "ask": "engine.commands.talk",
    "serve": "engine.commands.serve",
    "export": "engine.commands.export",
    "eval": "engine.commands.evaluate",
    "xray": "engine.commands.xray",
    "schema": "engine.commands.schema",
}


# argparse's words for what is no number, what they mean, and the way out.
_NUMBERS = {
    "invalid int": ("it is no whole number", "Use a whole number."),
    "invalid float": ("it is no number", "Use a number."),
}


class Parser(argparse.ArgumentParser):
    """Tells a mistake on the command line like any other mistake, without printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments.

        Raises:
            RequestErrors: Always; with one mistake for each argument that is missing.
        """
        raise RequestErrors(_mistakes_in(message, f"`{self.prog} --help` shows what it takes."))


def _mistakes_in(message: str, way_out: str) -> list[RequestError]:
    """Take argparse's sentence apart into field, cause and way out."""
    place, _, cause = message.partition(": ")
    if place == "the following arguments are required":
        return [RequestError(name, "it is missing.", way_out) for name in cause.split(", ")]
    if place == "unrecognized arguments":
        return [RequestError(cause, "it is not known here.", way_out)]
    if not place.startswith("argument "):
        return [RequestError("arguments", f"{message}.", way_out)]
    kind, _, value = cause.partition(" value: ")
    if kind in _NUMBERS:
        words, way_out = _NUMBERS[kind]
        cause = f"{words}: {value}"
    return [RequestError(place.removeprefix("argument "), f"{cause}.", way_out)]


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code. Modules are imported only when needed."""
    os.environ.update(engine_environment())
    _speak_utf8()
    try:
        options = build_parser().parse_args(arguments)
        command = getattr(import_module(_COMMANDS[options.command]), f"{options.command}_command")
        code = int(command(options))
        sys.stdout.flush()
        return code
    except (RequestError, RequestErrors) as error:
        print_mistakes(mistakes(error), as_json=_wants_json(arguments))
        return ExitCode.BAD_REQUEST
    except KeyboardInterrupt:
        return ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of our output went away; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json`, or what argparse takes for it, is there, even where the rest is wrong."""
    names = (word.partition("=")[0] for word in arguments)
    return any(len(name) > 2 and "--json".startswith(name) for name in names)


def _speak_utf8() -> None:
    """Programs read our JSON as UTF-8, and no name or reply may stop a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Half a character becomes \udXXX, which is what JSON calls it too.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def build_parser() -> Parser:
    """All commands and their options."""
    parser = Parser(prog="python -m engine", description="Tune every weight of a language model.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run_commands(commands)
    _add_report_commands(commands)
    _add_model_commands(commands)
    _add_data_commands(commands)
    _add_judging_command(commands)
    _add_trying_commands(commands)
    _add_export_command(commands)
    return parser


Commands = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]


def _add_run_commands(commands: Commands[Parser]) -> None:
    for name, words in (
        ("run", "train in the foreground; the last line is the run folder"),
        ("launch", "train in the background; prints the run folder"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("spec", metavar="SPEC", type=Path, help="YAML or JSON file")
        _add_runs(command)
        command.add_argument("--name", help="name of the run folder")
        _add_json(command)
    resume = commands.add_parser("resume", help="go on after the last checkpoint")
    stop = commands.add_parser("stop", help="stop after this step and keep a checkpoint")
    stop.add_argument("--discard", action="store_true", help="keep no checkpoint")
    for command in (resume, stop):
        command.add_argument("run", metavar="RUN", help="run folder or its name")
        _add_runs(command)
        _add_json(command)


def _add_report_commands(commands: Commands[Parser]) -> None:
    status = commands.add_parser("status", help="how a run is doing")
    status.add_argument("run", metavar="RUN", help="run folder or its name")
    every = commands.add_parser("list", help="all runs, newest first")
    for command in (status, every):
        _add_runs(command)
    schema = commands.add_parser("schema", help="the spec as JSON Schema")
    for command in (status, every, schema):
        _add_json(command)


def _add_model_commands(commands: Commands[Parser]) -> None:
    estimate = commands.add_parser("estimate", help="what a run will need, before it starts")
    estimate.add_argument("spec", metavar="SPEC", type=Path, help="YAML or JSON file")
    estimate.add_argument("--gpu-gib", type=float, metavar="N", help="compare with N GiB free")
    estimate.add_argument("--all-methods", action="store_true", help="every method side by side")
    estimate.add_argument("--fit", action="store_true", help="change what makes it fit")
    estimate.add_argument("--shorten", action="store_true", help="cut conversations, too, to fit")
    inspect = commands.add_parser("inspect", help="shapes of a model; loads no weights")
    inspect.add_argument("model", metavar="MODEL", help="starter, name, folder or hub id")
    ask = commands.add_parser("ask", help="one question to a model or to a run's result")
    ask.add_argument("target", metavar="TARGET", help="run, model folder, hub id or starter")
    ask.add_argument("prompt", metavar="PROMPT")
    ask.add_argument("--base", action="store_true", help="ask the model that the run began with")
    ask.add_argument("--seed", type=int, default=0, metavar="N")
    ask.add_argument("--temperature", type=float, default=0.0, metavar="T")
    ask.add_argument("--max-new-tokens", type=int, default=128, metavar="N")
    ask.add_argument("--system", default="", metavar="TEXT")
    xray = commands.add_parser("xray", help="what the numbers inside a model or a run look like")
    xray.add_argument("target", metavar="TARGET", help="run, model folder, hub id or starter")
    xray.add_argument("--data", metavar="SOURCE", help="chats that the gradients come from")
    serve = commands.add_parser("serve", help="let OpenAI's clients talk to a model")
    serve.add_argument("target", metavar="TARGET", help="run, model folder, hub id or starter")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 for any free one")
    serve.add_argument("--token", metavar="T", help="what clients show; or set QFT_SERVE_TOKEN")
    serve.add_argument("--fresh-token", action="store_true", help="make a token and print it")
    serve.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda:N")
    for command in (ask, serve, xray):
        _add_runs(command)
    for command in (estimate, inspect, ask, xray):
        _add_json(command)


def _add_data_commands(commands: Commands[Parser]) -> None:
    train, data = TrainSpec(), DataSpec(source="-")
    check = commands.add_parser("check", help="what a dataset is, and what is wrong with it")
    check.add_argument("data", metavar="DATA", help="bundled sample, file or hub id")
    check.add_argument("--model", default="starter", metavar="MODEL", help="whose tokens count")
    check.add_argument("--format", default=data.format, metavar="F", help="how rows hold words")
    check.add_argument("--columns", nargs="+", metavar="ROLE=COLUMN", help="which column is what")
    check.add_argument("--encoding", metavar="E", help="of a text file, such as cp1250")
    check.add_argument("--config", metavar="C", help="which part of a hub dataset")
    check.add_argument("--split", metavar="S", help="which split of a hub dataset")
    check.add_argument("--eval-percent", type=float, default=data.eval_percent, metavar="P")
    check.add_argument("--max-rows", type=int, metavar="N", help="use only the first rows")
    check.add_argument("--train-on", default=data.train_on, metavar="replies|all")
    check.add_argument("--sequence-length", type=int, default=train.sequence_length, metavar="N")
    check.add_argument("--first-example", type=int, default=1, metavar="N", help="shown first")
    check.add_argument("--num-examples", type=int, default=1, metavar="K", help="how many to show")
    _add_json(check)


def _add_judging_command(commands: Commands[Parser]) -> None:
    command = commands.add_parser("eval", help="loss and perplexity on held-out data")
    command.add_argument("target", metavar="TARGET", help="run, model folder, hub id or starter")
    command.add_argument(
        "data", metavar="DATA", nargs="?", help="sample, file or hub id; what the run held out"
    )
    command.add_argument("--base", action="store_true", help="only what the run began with")
    command.add_argument("--max-rows", type=int, metavar="N", help="use only the first rows")
    command.add_argument("--sequence-length", type=int, metavar="N", help="as in the run's spec")
    command.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda:N")
    command.add_argument("--harness", metavar="TASKS", help="tasks of lm_eval, instead of DATA")
    command.add_argument("--tasks-folder", type=Path, metavar="DIR", help="own tasks for lm_eval")
    command.add_argument("--chat-template", action="store_true", help="for lm_eval's questions")
    _add_runs(command)
    _add_json(command)


def _add_trying_commands(commands: Commands[Parser]) -> None:
    probe = commands.add_parser("probe", help="try two steps: their time and memory; makes no run")
    probe.add_argument("spec", metavar="SPEC", type=Path, help="YAML or JSON file")
    measure = commands.add_parser("measure", help="how fast this computer is, for forecasts")
    measure.add_argument("--device", default="auto", metavar="D", help="auto, cpu or cuda:N")
    for command in (probe, measure):
        _add_json(command)


def _add_export_command(commands: Commands[Parser]) -> None:
    export = commands.add_parser("export", help="a run's result as a folder for other programs")
    export.add_argument("run", metavar="RUN", help="run folder or its name; RUN@STEP: a checkpoint")
    export.add_argument("--to", required=True, metavar="hf|adapter|gguf", help="in which form")
    export.add_argument("--out", required=True, metavar="DIR", help="a folder that is not there")
    export.add_argument("--type", metavar="f16|q8_0", help="of a GGUF; q8_0 if left out")
    _add_runs(export)
    _add_json(export)


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runs", type=Path, default=default_runs(), metavar="DIR", help="folder of all runs"
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document")
