"""`schema`: the spec as JSON Schema."""

from __future__ import annotations

from argparse import Namespace

from engine.commands.output import print_json
from engine.contract.errors import ExitCode
from engine.contract.spec import RunSpec


def schema_command(options: Namespace) -> ExitCode:
    """Print it."""
    del options
    print_json(RunSpec.model_json_schema())
    return ExitCode.DONE
