"""A run whose result is the starter with its weights moved a little: it answers differently."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from engine.contract.bundled import STARTER
from engine.contract.run_dir import RunDir
from engine.fingerprint import fingerprint_of, record_base, record_result
from engine.model import load_model
from tests.test_gui_golden import golden_run


def tuned_copy(runs: Path, name: str = "moved", *, by: float = 0.1) -> RunDir:
    """A finished run that trained every weight of the starter, made and recorded in seconds."""
    run = golden_run(runs, name, kind="full")
    shutil.rmtree(run.export)
    shutil.copytree(STARTER, run.export)
    torch.manual_seed(0)
    for file in run.export.glob("*.safetensors"):
        moved = {
            key: value + by * value.float().std().to(value.dtype) * torch.randn_like(value)
            for key, value in load_file(file).items()
        }
        save_file(moved, file, metadata={"format": "pt"})
    record_base(run, fingerprint_of(load_model(STARTER), STARTER))
    record_result(run.export, load_model(run.export))
    return run
