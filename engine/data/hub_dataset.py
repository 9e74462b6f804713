"""Datasets of the hub: pinned before a run, fetched by `datasets`, read from its cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from engine.contract.errors import RequestError
from engine.data.containers.record_file import mistake

_ROWS_AT_ONCE = 1000
_PATIENCE = 10.0  # seconds until a hub that says nothing counts as out of reach
# The errors of the library that carries the hub's requests, whichever that is.
_TRANSPORT: type[Exception] = HfHubHTTPError.__bases__[0]


class HubRecords:
    """The rows of one split of a dataset that is in the cache: a `RecordFile`."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    @property
    def container(self) -> str:
        """What the source is, for people."""
        return "a dataset of the hub"

    @property
    def encoding(self) -> str | None:
        """None: the cache is in a format of its own."""
        return None

    @property
    def unit(self) -> Literal["line", "row"]:
        """Rows, from 1."""
        return "row"

    @property
    def is_running_text(self) -> bool:
        """Whether one text was cut into these: never, each is a record of its own."""
        return False

    @property
    def notes(self) -> list[str]:
        """What a person should know: nothing beside the rows."""
        return []

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Number and row, from the memory-mapped cache, some at a time."""
        from engine.data.containers.columnar import batch_rows

        number = 1
        for batch in self._dataset.data.table.to_batches(max_chunksize=_ROWS_AT_ONCE):
            for row in batch_rows(batch):
                yield number, row
                number += 1


def pin_dataset_revision(hub_id: str, wish: str | None) -> str:
    """The commit that a branch, a tag or nothing means now.

    Without a network it is the commit that is on this computer already.

    Raises:
        RequestError: There is no such dataset, or it is neither here nor within reach.
    """
    with _told(hub_id, wish):
        folder = snapshot_download(
            hub_id, repo_type="dataset", revision=wish, allow_patterns=["README.md"]
        )
    return Path(folder).name


def open_hub_records(
    hub_id: str, config: str | None, split: str | None, revision: str | None
) -> HubRecords:
    """The rows of one split, fetched if they are not here. No code of the dataset's is run.

    Args:
        hub_id: owner/name.
        config: Which part; may be left out where there is one, or one that is the default.
        split: `train` if left out.
        revision: Commit, branch or tag.

    Raises:
        RequestError: It cannot be had, or has several parts, or no such part or split.
    """
    commit = revision if revision and len(revision) == 40 else None
    commit = commit or pin_dataset_revision(hub_id, revision)
    with _told(hub_id, revision):
        found = _cached(hub_id, config, commit) if config else None
        if found is None and not _is_within_reach(hub_id, commit):
            found = _cached(hub_id, config, commit)
            if found is None:
                raise ConnectionError("neither here nor within reach")
        builder = _builder(hub_id, config, commit) if found is None else found
        if builder.hash != commit:  # offline, the library takes whatever commit it has
            raise ConnectionError("only another commit is in the cache")
        _check_split(hub_id, builder, split or "train")
        if found is None:
            builder.download_and_prepare(verification_mode="no_checks")
        return HubRecords(builder.as_dataset(split=split or "train"))


def _is_within_reach(hub_id: str, commit: str) -> bool:
    """Ask the hub once: the library above would try for half a minute before it gives up."""
    try:
        HfApi().repo_info(hub_id, repo_type="dataset", revision=commit, timeout=_PATIENCE)
    except HfHubHTTPError:
        raise
    except (ConnectionError, TimeoutError, _TRANSPORT):
        return False
    return True


def _cached(hub_id: str, config: str | None, commit: str) -> Any:
    """What reads a dataset that was fetched whole before; None if it was not."""
    from datasets import config as settings
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, name = hub_id.partition("/")
    root = Path(settings.HF_DATASETS_CACHE) / f"{owner}___{camelcase_to_snakecase(name)}"
    # Only names that are there are compared, so that no name can lead elsewhere.
    folders = [
        folder
        for folder in root.glob(f"*/*/{commit}")
        if config in (None, folder.parts[-3]) and (folder / "dataset_info.json").is_file()
    ]
    if not folders:
        return None
    if len(folders) > 1:
        raise _several_parts(hub_id, sorted({folder.parts[-3] for folder in folders}))
    part, version, _ = folders[0].parts[-3:]
    return Cache(dataset_name=name, repo_id=hub_id, config_name=part, version=version, hash=commit)


def _builder(hub_id: str, config: str | None, commit: str) -> Any:
    """What fetches one part of a dataset; asks the hub which there are."""
    import datasets
    from datasets import config as settings

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    settings.HF_UPDATE_DOWNLOAD_COUNTS = False
    # With the prefix it is never a folder that happens to have that name.
    place = f"hf://datasets/{hub_id}"
    try:
        return datasets.load_dataset_builder(place, config, revision=commit)
    except ValueError as error:
        if str(error).startswith("Couldn't find cache"):
            raise ConnectionError(
                "the hub is out of reach, and another part is in the cache"
            ) from (error)
        names = datasets.get_dataset_config_names(place, revision=commit)
        if config in names or (config is None and len(names) < 2):
            raise error
        if config is None:
            raise _several_parts(hub_id, names) from error
        raise RequestError(
            "data.config",
            f"{hub_id} has no part {config!r}.",
            f"It has: {_listed(names)}.",
        ) from error


def _check_split(hub_id: str, builder: Any, split: str) -> None:
    splits: list[str] = list(builder.info.splits or builder.config.data_files or ())
    if splits and split not in splits:
        raise RequestError(
            "data.split", f"{hub_id} has no split {split!r}.", f"It has: {_listed(splits)}."
        )


def _several_parts(hub_id: str, names: list[str]) -> RequestError:
    return RequestError(
        "data.config", f"{hub_id} has several parts.", f"Choose one of: {_listed(names)}."
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(str, names[:20]))
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


@contextmanager
def _told(hub_id: str, revision: str | None) -> Iterator[None]:
    """Whatever hub and library say against it becomes one sentence."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        raise _refused(hub_id, revision, error) from error


def _refused(hub_id: str, revision: str | None, error: Exception) -> Exception:
    told = _hub_error(error)
    name = type(error).__name__
    if isinstance(told, HFValidationError):
        return mistake(
            f"{hub_id!r} cannot be a name on the hub.", "Use owner/name, or the path of a file."
        )
    if isinstance(told, GatedRepoError):
        return mistake(
            f"the hub gives {hub_id} only to those who accepted its terms.",
            "Accept them on the dataset's page, then log in with `hf auth login`.",
        )
    if isinstance(told, RevisionNotFoundError):
        return RequestError(
            "data.revision", f"{hub_id} has no revision {revision}.", "Leave it out."
        )
    if isinstance(told, RepositoryNotFoundError) or name == "DatasetNotFoundError":
        return mistake(
            f"the hub has no dataset {hub_id}, or it is private.",
            "Check the name; for a private one log in with `hf auth login`.",
        )
    return _failed(hub_id, error, name)


def _failed(hub_id: str, error: Exception, name: str) -> Exception:
    if name in ("EmptyDatasetError", "DataFilesNotFoundError"):
        return mistake(f"{hub_id} holds no file of records.", "Choose another dataset.")
    if isinstance(error, RuntimeError) and "scripts" in str(error):
        return mistake(
            f"{hub_id} can be read only by a program of its own, which is never run.",
            "Choose a copy of it with plain files, such as Parquet.",
        )
    unreachable = (LocalEntryNotFoundError, ConnectionError, TimeoutError, _TRANSPORT)
    if isinstance(error, unreachable):
        return mistake(
            f"{hub_id} is not on this computer and the hub cannot be reached.",
            "Go online once, or name a file.",
        )
    if isinstance(error, OSError) and error.errno is not None:
        reason = (error.strerror or name).lower()
        return mistake(f"{hub_id} cannot be stored on this computer: {reason}.", "Make room.")
    cause = error.__cause__ or error
    reason = " ".join(str(cause).split())[:200].rstrip(".") or type(cause).__name__
    return mistake(
        f"{hub_id} cannot be read: {reason}.", "Download one of its files and name that."
    )


def _hub_error(error: BaseException | None) -> BaseException | None:
    """The hub's own answer behind an error of the library above it."""
    while error is not None and not isinstance(error, HfHubHTTPError | HFValidationError):
        error = error.__cause__
    return error
