"""What can be wrong with a request, in one plain sentence, and the exit codes of every command."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What every command ends with."""

    DONE = 0
    FAILED = 1
    BAD_REQUEST = 2
    STOPPED = 3
    OUT_OF_MEMORY = 4
    DIVERGED = 5


class RequestError(ValueError):
    """One mistake in a request: the field, the cause, and the way out.

    Attributes:
        field: Dotted place in the spec, such as `train.batch_size`, or the command's argument.
        message: The cause, one sentence.
        advice: The way out, one sentence; may be empty when the cause already says it.
    """

    def __init__(self, field: str, message: str, advice: str = "") -> None:
        super().__init__(f"{field}: {message} {advice}".strip())
        self.field = field
        self.message = message
        self.advice = advice

    def as_json(self) -> dict[str, str]:
        """The `error` object of the commands' JSON output."""
        return {
            "class": "bad_request",
            "message": self.message,
            "field": self.field,
            "advice": self.advice,
        }


class RequestErrors(ValueError):
    """Several mistakes found at once, so that a person mends them in one go."""

    def __init__(self, errors: Sequence[RequestError]) -> None:
        assert errors, "an empty list of mistakes is no mistake"
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


def mistakes(error: ValueError) -> tuple[RequestError, ...]:
    """The single mistakes in a `RequestError` or `RequestErrors`.

    Raises:
        ValueError: The error itself, if it is neither: then it is a fault of the program.
    """
    if isinstance(error, RequestErrors):
        return error.errors
    if isinstance(error, RequestError):
        return (error,)
    raise error
