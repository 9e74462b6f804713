"""A hub dataset named in a spec: its commit is pinned, its rows become chats like any others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.test_hub_dataset import BEFORE, NOW, PROJECT, Hub

DRIVER = """
import json, sys
from engine.contract.errors import RequestErrors
from engine.contract.spec_file import validate_spec
from engine.data.source import read_dataset, read_items
from engine.request import complete

def spec(**data):
    return validate_spec({"model": {"source": "starter"}, "method": {"kind": "full"}, "data": data})

pinned = complete(spec(source="ann/chats")).data
older = complete(spec(source="ann/chats", revision="v1")).data
dataset = read_dataset(pinned)
try:
    complete(spec(source="ann/never"))
except RequestErrors as error:
    refused = str(error)
print(json.dumps({
    "pinned": [pinned.source, pinned.revision, pinned.sha256],
    "older": older.revision,
    "dataset": [dataset.usable, dataset.format, dataset.columns, dataset.sha256],
    "words": [[turn.content for turn in item] for item in read_items(pinned)],
    "refused": refused,
}))
"""


def answers(home: Path) -> dict[str, Any]:
    """What the engine finds in a process with a hub of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", DRIVER],
            cwd=PROJECT,
            env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_hub_dataset_is_pinned_by_its_commit_and_read_like_a_file(tmp_path: Path) -> None:
    found = answers(tmp_path)
    assert found["pinned"] == ["ann/chats", NOW, None]
    assert found["older"] == BEFORE
    columns = {"prompt": "question", "reply": "answer"}
    assert found["dataset"] == [2, "qa", columns, None]
    assert found["words"] == [["Hi", "Hi!"], ["Ho", "Ho!"]]
    assert found["refused"].startswith("data.source: ")
    assert "ann/never" in found["refused"]
