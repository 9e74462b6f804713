"""What the tests of the engine share: one thread, quiet libraries, tiny models made once.

Nothing heavy is imported here, so that a test without torch starts at once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    """On tensors this small, two threads only wait for each other."""
    if "torch" not in sys.modules:
        yield
        return
    import torch
    from transformers.utils import logging

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    # Preparing a run collects garbage; what the libraries hold for good need not be gone through.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.enable_progress_bar()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shapes of tiny models stay out of the user's cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model folder by architecture; made once, so tests only read it."""
    from tests.tiny import tiny_model_folder

    root = tmp_path_factory.mktemp("models")

    def folder(architecture: str) -> Path:
        path = root / architecture
        return path if path.is_dir() else tiny_model_folder(path, architecture)

    return folder


@pytest.fixture(scope="session")
def chats_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four chats; tests only read it."""
    from tests.tiny import chat_rows, write_jsonl

    return write_jsonl(tmp_path_factory.mktemp("data") / "chats.jsonl", chat_rows(24))
