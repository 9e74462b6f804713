"""What the tests of the engine share: one thread, quiet libraries, tiny models made once.

Nothing heavy is imported here, so that a test without torch starts at once.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.browser"]

# Beyond Llama, Gemma 2, GPT-2 and Mixtral, each of which has something that the others lack.
FURTHER_ARCHITECTURES = {
    *("mistral", "qwen2", "qwen3", "gemma3_text", "phi", "phi3", "opt", "gpt_neox"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tested for one architecture after the other is slow beyond the first few."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if FURTHER_ARCHITECTURES & {one for one in parameters.values() if isinstance(one, str)}:
            item.add_marker(pytest.mark.slow)


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


_modules_frozen = [0]


@pytest.fixture(autouse=True)
def _little_to_collect(_one_quiet_thread: None) -> None:
    """Nor what a library imported at its first use."""
    if "torch" in sys.modules and len(sys.modules) != _modules_frozen[0]:
        gc.collect()
        gc.freeze()
        _modules_frozen[0] = len(sys.modules)


@pytest.fixture(scope="session", autouse=True)
def _short_replies() -> Iterator[None]:
    """Most of a tiny run would be its replies, and what they are to show shows in a few tokens."""
    with pytest.MonkeyPatch.context() as patch:
        if "engine.evaluate" in sys.modules:
            patch.setattr("engine.evaluate.SAMPLE_TOKENS", 8)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shapes of tiny models and what their runs measured stay out of the user's folders."""
    data = tmp_path_factory.mktemp("user-data")
    cache = tmp_path_factory.mktemp("cache")
    if os.environ.get("PYTEST_XDIST_WORKER"):
        # All workers read what one has traced: tiny models of one architecture are alike.
        cache = tmp_path_factory.getbasetemp().parent / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("XDG_DATA_HOME", str(data))
        yield data


@pytest.fixture(autouse=True)
def _no_case_of_another_test(_own_folders: Path) -> Iterator[None]:
    """A forecast is corrected by the runs of its own test only."""
    yield
    shutil.rmtree(_own_folders / "qft-workbench", ignore_errors=True)


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
