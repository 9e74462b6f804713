"""The model hub: pinning a revision before a run, downloading in it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engine.contract.errors import RequestError
from engine.contract.model_source import FIELD

WEIGHTS = ("*.safetensors",)
DESCRIPTION = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
# The errors of the library that carries the hub's requests, whichever that is.
_TRANSPORT: type[Exception] = HfHubHTTPError.__bases__[0]


def pin_revision(hub_id: str, wish: str | None) -> str:
    """The commit that a branch, a tag or nothing means now; fetches what describes the model.

    Without a network it is the commit that is on this computer already.

    Raises:
        RequestError: There is no such model, or it is neither here nor within reach.
    """
    return download(hub_id, wish, weights=False).name


def download(hub_id: str, revision: str | None, *, weights: bool) -> Path:
    """The local folder of a hub model, named by its commit; with or without its weights.

    Raises:
        RequestError: It cannot be had.
    """
    patterns = [*DESCRIPTION, *WEIGHTS] if weights else [*DESCRIPTION]
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise RequestError(
            FIELD, f"{hub_id!r} cannot be a name on the hub.", "Use owner/name, or a folder."
        ) from error
    except HfHubHTTPError as error:
        raise _refused(hub_id, revision, error) from error
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError, _TRANSPORT) as error:
        raise RequestError(
            FIELD,
            f"{hub_id} is not on this computer and the hub cannot be reached.",
            "Go online once, or name a folder.",
        ) from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise RequestError(
            FIELD, f"{hub_id} cannot be stored on this computer: {reason}.", "Make room."
        ) from error


def _refused(hub_id: str, revision: str | None, error: HfHubHTTPError) -> RequestError:
    if isinstance(error, GatedRepoError):
        return RequestError(
            FIELD,
            f"the hub gives {hub_id} only to those who accepted its terms.",
            "Accept them on the model's page, then log in with `hf auth login`.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return RequestError(
            FIELD,
            f"the hub has no model {hub_id}, or it is private.",
            "Check the name; for a private one log in with `hf auth login`.",
        )
    if isinstance(error, RevisionNotFoundError):
        return RequestError(
            "model.revision", f"{hub_id} has no revision {revision}.", "Leave it out."
        )
    reason = str(error).strip().splitlines()[0][:200]
    return RequestError(FIELD, f"the hub does not give {hub_id}: {reason}", "Try again later.")
