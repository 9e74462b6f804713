from pathlib import Path

import psutil
import pytest

from engine.contract.errors import RequestError
from engine.memory import devices
from engine.memory.devices import choose_device, this_computer, visible_indices

NAMES = [["0", "GPU-aa1"], ["1", "GPU-bb2"], ["2", "GPU-bb3"]]


@pytest.mark.parametrize(
    ("setting", "visible"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        ("GPU-aa", [0]),
        ("GPU-bb", []),  # two begin like this
        ("0,9,1", [0]),  # CUDA stops at the first that it does not know
    ],
)
def test_cuda_shows_what_its_setting_lists(setting: str | None, visible: list[int]) -> None:
    assert visible_indices(setting, NAMES) == visible


def _container(folder: Path, limit: str, current: str) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(current)
    return folder


def test_a_containers_limit_counts_its_own_use_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_CGROUP", _container(tmp_path, "600000000", "200000000"))
    device = this_computer()
    assert (device.total_bytes, device.free_bytes) == (600_000_000, 400_000_000)


def test_a_limit_above_the_memory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_CGROUP", _container(tmp_path, str(1 << 60), "1"))
    assert this_computer().total_bytes == psutil.virtual_memory().total


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError, match=r"train\.device: there is no cuda:99 here"):
        choose_device("cuda:99")
