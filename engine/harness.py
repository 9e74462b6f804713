"""Tasks of EleutherAI's lm-evaluation-harness, asked of a model as this program loads it.

The harness is optional: `requirements-harness.txt` names its version. It brings the tasks and their
metrics; the model is ours, so that an adapter sits on its base in the form it was trained on. A
task of the harness downloads its data once; a folder of own tasks needs no network. A task is code:
its YAML may name Python functions beside it, which are run.
"""

from __future__ import annotations

import math
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.contract.errors import RequestError
from engine.contract.paths import is_folder

if TYPE_CHECKING:
    import torch

    from engine.target import Target

FIELD = "--harness"
INSTALL = (
    f"Install it with `{sys.executable} -m pip install -r requirements.txt "
    "-r requirements-harness.txt`."
)
SEED = 0
BATCH_SIZE = 8
# What the harness, its data and a task's own YAML raise where a task cannot be made.
_NO_TASK = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, ImportError)


@dataclass(frozen=True)
class TaskResult:
    """What came of one task.

    Attributes:
        name: Of the task, or of a group of them.
        num_examples: Questions that were asked; None for a group.
        metrics: By name and filter, as the harness writes them, value and standard error; the
            error is None where there is none.
    """

    name: str
    num_examples: int | None
    metrics: dict[str, tuple[float, float | None]]


@dataclass(frozen=True)
class HarnessResult:
    """What came of all tasks."""

    target: str
    side: str
    harness_version: str
    has_chat_template: bool
    tasks: tuple[TaskResult, ...]

    def as_json(self) -> dict[str, Any]:
        """The document of `eval --harness --json`."""
        return {
            "target": self.target,
            "side": self.side,
            "harness": {
                "version": self.harness_version,
                "chat_template": self.has_chat_template,
                "tasks": {
                    task.name: {
                        "num_examples": task.num_examples,
                        "metrics": {
                            name: {"value": value, "stderr": error}
                            for name, (value, error) in task.metrics.items()
                        },
                    }
                    for task in self.tasks
                },
            },
        }

    def lines(self) -> list[str]:
        """For people: a line for each metric."""
        template = "with" if self.has_chat_template else "without"
        lines = [f"{self.target}, lm_eval {self.harness_version}, {template} the chat template"]
        for task in self.tasks:
            for name, (value, error) in task.metrics.items():
                spread = "" if error is None else f" ± {error:.4f}"
                asked = "" if task.num_examples is None else f" ({task.num_examples:,} questions)"
                lines.append(
                    f"{task.name}  {name.removesuffix(',none')}  {value:.4f}{spread}{asked}"
                )
        return lines


def split_tasks(text: str) -> list[str]:
    """Names of tasks, separated by commas.

    Raises:
        RequestError: There is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise RequestError(FIELD, "no task is named.", "Name one, such as hellaswag.")
    return names


def run_tasks(
    target: Target,
    tasks: list[str],
    device: torch.device,
    *,
    folder: Path | None,
    limit: int | None,
    chat_template: bool,
) -> HarnessResult:
    """Ask a model the questions of some tasks.

    Args:
        target: The model.
        tasks: Names of tasks or groups.
        device: Where.
        folder: Of own tasks, beside those of the harness.
        limit: Questions per task; None for all.
        chat_template: Whether questions are put into the model's chat template. Figures that
            others publish are mostly without.

    Raises:
        RequestError: The harness is not installed, there is no such task, or its data cannot be
            had.
    """
    found = _version()
    getLogger("lm_eval").setLevel(ERROR)
    if folder is not None and not is_folder(folder):
        raise RequestError("--tasks-folder", f"there is no folder {folder}.", "Name another.")
    # Standard output may hold one document and nothing else.
    with redirect_stdout(sys.stderr):
        manager = _manager(tasks, folder)
        results = _evaluate(target, tasks, device, manager, limit, chat_template)
    side = "tuned" if target.is_tuned else "base"
    counts = results.get("n-samples", {})
    told = tuple(
        TaskResult(name, counts.get(name, {}).get("effective"), _metrics(values))
        for name, values in results["results"].items()
    )
    return HarnessResult(target.name, side, found, chat_template, told)


def _version() -> str:
    try:
        return version("lm_eval")
    except PackageNotFoundError as error:
        raise RequestError(FIELD, "the lm-evaluation-harness is not installed.", INSTALL) from error


def _manager(tasks: list[str], folder: Path | None) -> Any:
    """The harness's index, in which every task is and can be made.

    The index of its own tasks takes ten seconds to make; where a folder has all, it is not needed.
    """
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    include = None if folder is None else str(folder)
    if include is not None:
        manager = TaskManager(include_path=include, include_defaults=False)
        if all(manager.match_tasks([name]) for name in tasks):
            with suppress(*_NO_TASK):  # may build on tasks of the harness: those come below
                manager.load(tasks)
                return manager
    manager = TaskManager(include_path=include)
    unknown = [name for name in tasks if not manager.match_tasks([name])]
    if unknown:
        raise RequestError(
            FIELD,
            f"the harness knows no task {unknown[0]}.",
            "Check the name, or give the folder of your own tasks as --tasks-folder.",
        )
    try:
        manager.load(tasks)
    except _NO_TASK as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RequestError(
            FIELD,
            f"the data of {', '.join(tasks)} cannot be had: {reason}",
            "It is downloaded at the first use; check the network and the task's file.",
        ) from error
    return manager


def _evaluate(
    target: Target,
    tasks: list[str],
    device: torch.device,
    manager: Any,
    limit: int | None,
    chat_template: bool,
) -> dict[str, Any]:
    from engine.result import load_target

    # By name, since an extra may be missing, and its decorators hide what the functions take.
    harness: Any = import_module("lm_eval")
    huggingface: Any = import_module("lm_eval.models.huggingface")
    loaded = load_target(target, device)
    model = huggingface.HFLM(
        pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=BATCH_SIZE
    )
    return harness.simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        apply_chat_template=chat_template,
        log_samples=False,
        random_seed=SEED,
        numpy_random_seed=SEED,
        torch_random_seed=SEED,
        fewshot_random_seed=SEED,
    )


def _metrics(values: dict[str, Any]) -> dict[str, tuple[float, float | None]]:
    """The harness's `acc,none` and `acc_stderr,none` as pairs; what is no number is left out."""
    found: dict[str, tuple[float, float | None]] = {}
    for name, value in values.items():
        metric, _, choice = name.partition(",")
        number = _number(value)
        if choice and number is not None and not metric.endswith("_stderr"):
            found[name] = (number, _number(values.get(f"{metric}_stderr,{choice}")))
    return found


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
