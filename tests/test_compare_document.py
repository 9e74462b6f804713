"""What docs/compare.md shows works as it stands there, with the starter in place of the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from engine.contract.bundled import STARTER
from engine.contract.launch import PROJECT
from engine.model import load_model
from tests.serving import raw, served

TEXT = (PROJECT / "docs" / "compare.md").read_text(encoding="utf-8")


def shown(name: str) -> str:
    """The code below a mark."""
    found = re.search(rf"<!-- run with: {name} -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert found is not None
    return found[1]


def printed(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_and_curl_get_answers(tmp_path: Path) -> None:
    loaded = load_model(STARTER)
    with served(loaded, name="pirate") as port:
        code = shown("openai").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        whole, _, streamed = printed(code, tmp_path).partition("\n")
        assert len(whole) > 5
        assert len(streamed) > 5
        body = re.search(r"-d '(.*?)'", TEXT)
        assert body is not None
        status, answer = raw(port, body=body[1].encode())
        assert (status, answer["model"]) == (200, json.loads(body[1])["model"])


def test_transformers_loads_the_folder(tmp_path: Path) -> None:
    (tmp_path / "pirate-hf").symlink_to(STARTER)
    assert len(printed(shown("transformers"), tmp_path)) > 5
