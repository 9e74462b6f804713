"""Starting a detached engine. Its output goes to a file: a pipe would stop it when nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from engine.contract.identity import identity_of
from engine.contract.run_dir import RunDir

PROJECT = Path(__file__).resolve().parents[2]
_WINDOWS_FLAGS = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(
    subprocess, "CREATE_NO_WINDOW", 0
)


def engine_environment() -> dict[str, str]:
    """The environment of every engine process: nothing phones home, UTF-8 everywhere."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        **os.environ,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # NVML counts GPUs by their place on the bus; so must CUDA.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # Threads that spin while they wait slow a busy computer down many times over; threads that
        # never spin make every small operation ten times as slow. So they spin for microseconds.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "2000"),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(PROJECT), *filter(None, paths)])),
    }


def launch(run: RunDir) -> None:
    """Start an engine that outlives this process and works in `run`."""
    options: dict[str, Any] = (
        {"creationflags": _WINDOWS_FLAGS}
        if sys.platform == "win32"
        else {"start_new_session": True}
    )
    with run.log_path.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "engine.attempt", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=engine_environment(),
            **options,
        )
    identity = identity_of(child.pid)
    run.write_launch(
        {**(identity.as_json() if identity else {}), "attempt": run.attempt(), "pid": child.pid}
    )
    # A dead child stays a zombie until it is waited for.
    threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()
