"""What every part of a spec is: frozen, strict, and clear about its mistakes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Frozen(BaseModel):
    """Unknown keys, wrong types, NaN and later changes are all refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def field_errors(*mistakes: tuple[str, str]) -> PydanticCustomError:
    """Mistakes that several fields make together, each reported at one of them.

    Args:
        *mistakes: Field and message; in the message `; ` stands between cause and way out.
    """
    words = " ".join(f"{field}: {message}" for field, message in mistakes)
    return PydanticCustomError("request", "{words}", {"mistakes": mistakes, "words": words})
