"""What the Compare page has written: as which forms, and into which folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.contract.errors import RequestError
from qft_gui.comparing.errands import Errands
from qft_gui.view.comparison import export_frame
from tests.test_gui_golden import golden_run


def test_an_export_is_offered_only_as_what_the_run_has(tmp_path: Path) -> None:
    errands = Errands(tmp_path / "runs")
    for kind in ("qft", "lora"):
        golden_run(tmp_path / "runs", kind, kind=kind)
    assert list(errands.usual("qft")) == list(errands.usual("qft@20")) == ["hf", "q8_0", "f16"]
    assert "adapter" in errands.usual("lora")
    assert errands.usual("") == {}
    with pytest.raises(RequestError, match="no such form"):
        errands.export("qft", "adapter", "")


def test_a_folder_s_name_alone_is_one_beside_the_other_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "started here").mkdir()
    monkeypatch.chdir(tmp_path / "started here")
    golden_run(tmp_path / "runs", "done")
    errands = Errands(tmp_path / "runs")
    errands.export("done", "hf", "mine")
    errand = errands.of("export", "done")
    assert errand is not None
    assert errand.out == tmp_path / "exports" / "mine"
    assert str(errand.out) in export_frame(errand, {})["text"]
    errands.cancel("export", "done")
    assert not list((tmp_path / "started here").iterdir())
