"""What runs on this computer needed beside what was forecast: one line each, in a user's file."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.contract.durable import write_whole

KEPT_CASES = 500
_LONGEST_FILE = 1 << 21
_O_BINARY = getattr(os, "O_BINARY", 0)


class Case(BaseModel):
    """One run's first steps: what was forecast for them, and what they needed.

    Attributes:
        forecast_model: Which estimator made the forecast.
        settings: Method and settings that decide the memory of a step, as a hash.
        fused: Whether no more than one gradient was alive at a time.
        sizes: The model's, as text.
        data: Which data, and which of its tokens are trained.
        device: The device and its computer: a home folder may be shared by several.
        predicted_bytes: Gradients, activations, logits and temporaries at the peak, as estimated.
        measured_bytes: The same, measured.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    forecast_model: int
    method: str
    settings: str
    fused: bool
    model_type: str
    sizes: str
    data: str
    device: str
    checkpointing: bool
    predicted_bytes: int = Field(gt=0)
    measured_bytes: int = Field(gt=0)

    @property
    def family(self) -> tuple[tuple[int, str, bool], tuple[str, str, bool]]:
        """What runs have to share to be alike: the estimator, how they train, and on what."""
        return (
            (self.forecast_model, self.method, self.fused),
            (self.model_type, self.device, self.checkpointing),
        )

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured_bytes / self.predicted_bytes


def calibration_path() -> Path:
    """Where this user's cases are."""
    return Path(user_data_dir("qft-workbench")) / "calibration.jsonl"


def read_cases() -> tuple[Case, ...]:
    """The newest cases, oldest first; parsed again only after the file has changed."""
    path = calibration_path()
    try:
        state = path.stat()
    except OSError:
        return ()
    return _parsed(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _parsed(path: Path, changed_ns: int, size: int) -> tuple[Case, ...]:
    del changed_ns
    if not path.is_file():
        return ()
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, size - _LONGEST_FILE))
            lines = stream.read(_LONGEST_FILE).splitlines()
    except OSError:
        return ()
    found = (_case(line) for line in lines[-KEPT_CASES:])
    return tuple(case for case in found if case is not None)


def _case(line: bytes) -> Case | None:
    """The case in a line; None if it is torn, or something else."""
    try:
        return Case.model_validate_json(line)
    except ValidationError:
        return None


def remember(case: Case) -> None:
    """Append a case with one write, so that engines that end at once do not mix theirs.

    Raises:
        OSError: The file cannot be written.
    """
    path = calibration_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    line = case.model_dump_json().encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _O_BINARY, 0o600)
    try:
        if os.fstat(descriptor).st_size:
            os.lseek(descriptor, -1, os.SEEK_END)
            if os.read(descriptor, 1) != b"\n":
                line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) > 2 * KEPT_CASES:
        # A case that another engine appends between the two calls is lost: one of many.
        write_whole(path, b"".join(lines[-KEPT_CASES:]))
