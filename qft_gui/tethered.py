"""An engine that ends with whoever started it: `python -m qft_gui.tethered ARGUMENTS`.

It does what `python -m engine ARGUMENTS` does until its input ends, which is when its starter
closes the pipe, or dies in any way.
"""

from __future__ import annotations

import os
import runpy
import threading

from engine.contract.errors import ExitCode


def main() -> None:
    """Run the engine's command line with this process's arguments."""
    threading.Thread(target=_end_with_input, name="tether", daemon=True).start()
    runpy.run_module("engine", run_name="__main__", alter_sys=True)


def _end_with_input() -> None:
    # Read without Python's buffer: its lock would be in the way of an ordinary end.
    while os.read(0, 1):
        pass
    os._exit(ExitCode.STOPPED)


if __name__ == "__main__":
    main()
