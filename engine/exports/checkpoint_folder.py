"""A checkpoint in the form of a run's own export, from which others are made like from that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine.checkpoint import disk_errors
from engine.contract.drafts import draft_folder
from engine.contract.errors import RequestError
from engine.contract.model_source import resolve_model
from engine.contract.run_dir import RunDir
from engine.export import write_result
from engine.exports.new_folder import FIELD as OUT
from engine.exports.new_folder import check_room
from engine.exports.result_folder import FIELD, ResultFolder
from engine.methods.lora import LoraMethod
from engine.model import fetch_model, load_model
from engine.run_state import read_state, whole_checkpoint


@contextmanager
def checkpoint_folder(run: RunDir, step: int, out: Path) -> Iterator[ResultFolder]:
    """Write a checkpoint as an export of its step would be, beside `out`; it is gone at the end.

    Raises:
        RequestError: The checkpoint is not whole, its base cannot be had, or the disk is full.
    """
    out = out.absolute()
    whole_checkpoint(run, step)
    model = run.spec().model
    base = fetch_model(resolve_model(model.source), model.revision)
    check_room(out.parent, sum(file.stat().st_size for file in base.glob("*.safetensors")))
    with ExitStack() as stack:
        try:
            draft = stack.enter_context(draft_folder(out.parent, f"{out.name}-step-{step}"))
            written = _written(run, step, base, draft / "export")
        except OSError as error:
            reason = (error.strerror or "the disk is full or failing").lower()
            raise RequestError(
                OUT, f"{out.parent} could not be written to: {reason}.", "Choose another place."
            ) from error
        yield written


def _written(run: RunDir, step: int, base: Path, folder: Path) -> ResultFolder:
    state = read_state(run, run.spec(), step)
    if state is None:  # removed by the run meanwhile
        raise RequestError(
            FIELD, f"{run.name} no longer has a checkpoint of step {step}.", "Choose another."
        )
    folder.mkdir()
    with disk_errors():
        write_result(folder, state.adapted or load_model(base), state.method)
    return ResultFolder(run, folder, isinstance(state.method, LoraMethod), step)
