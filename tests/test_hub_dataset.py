"""Datasets of the hub by its real client, against a small hub on this computer."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

PROJECT = Path(__file__).parents[1]
NOW, BEFORE = "a" * 40, "b" * 40
REVISIONS = {"main": NOW, "v1": BEFORE, NOW: NOW, BEFORE: BEFORE}


def table(*questions: str) -> bytes:
    rows = pa.table({"question": list(questions), "answer": [f"{one}!" for one in questions]})
    buffer = io.BytesIO()
    parquet.write_table(rows, buffer)
    return buffer.getvalue()


PARTS = b"""---
configs:
- config_name: cooking
  data_files:
  - {split: train, path: cooking/train.jsonl}
  - {split: test, path: cooking/test.jsonl}
- config_name: sailing
  data_files: sailing/train.jsonl
---
"""
LINE = b'{"question": "How long?", "answer": "Ten minutes.", "note": null}\n'
DATASETS: dict[str, dict[str, bytes]] = {
    "ann/chats": {
        "README.md": b"# Chats\n",
        "data/train-00000-of-00001.parquet": table("Hi", "Ho"),
    },
    "ann/parts": {
        "README.md": PARTS,
        "cooking/train.jsonl": LINE * 3,
        "cooking/test.jsonl": LINE,
        "sailing/train.jsonl": LINE * 2,
    },
    "ann/tests": {"README.md": b"# Tests\n", "test.csv": b"question,answer\nHi,Ho\n"},
    "ann/script": {"README.md": b"# Code\n", "script.py": b"raise SystemExit"},
    "ann/nothing": {"README.md": b"# Nothing\n"},
    "ann/broken": {"README.md": b"# Broken\n", "train.jsonl": b'{"question": \n' * 5},
}
OLDER = {
    "ann/chats": {"README.md": b"# Chats\n", "data/train-00000-of-00001.parquet": table("Old")}
}
NOT_HERE = (
    "data.source: {} is not on this computer and the hub cannot be reached. "
    "Go online once, or name a file."
)

DRIVER = """
import json, sys
from engine.contract.errors import RequestError
from engine.data import hub_dataset

answers = []
for name, *arguments in json.loads(sys.argv[1]):
    try:
        if name == "pin":
            answers.append(hub_dataset.pin_dataset_revision(*arguments))
        else:
            records = hub_dataset.open_hub_records(*arguments)
            assert list(records) == list(records)
            answers.append([records.container, records.unit, list(records)])
    except RequestError as error:
        answers.append(str(error))
print(json.dumps([answers, "torch" in sys.modules]))
"""


class Hub(BaseHTTPRequestHandler):
    """Dataset info, file list, what is known of paths, and files, as the hub gives them."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        asked = json.loads(body) if body[:1] == b"{" else {}
        self.wanted = asked.get("paths", [])
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].replace("%2F", "/")
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/datasets/"):
            owner, name, *rest = path.removeprefix("/api/datasets/").split("/")
            self.answer_about(f"{owner}/{name}", rest)
            return
        name, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if name not in DATASETS:
            self.refuse(name)
        elif revision not in REVISIONS:
            self.send(404, b"{}", error="RevisionNotFound")
        elif file in files_of(name, revision):
            self.send(200, files_of(name, revision)[file], commit=REVISIONS[revision])
        else:
            self.send(404, b"{}", error="EntryNotFound", commit=REVISIONS[revision])

    def answer_about(self, name: str, rest: list[str]) -> None:
        what, revision, *folder = [*rest, "revision", "main"][:2] + rest[2:]
        if name not in DATASETS:
            self.refuse(name)
        elif revision not in REVISIONS:
            self.send(404, b"{}", error="RevisionNotFound")
        elif what == "revision":
            info = {"id": name, "sha": REVISIONS[revision], "siblings": []}
            info["siblings"] = [{"rfilename": file} for file in files_of(name, revision)]
            self.send(200, json.dumps(info).encode())
        else:
            files = files_of(name, revision)
            wanted = self.wanted if what == "paths-info" else None
            found = entries(files, "/".join(folder), wanted)
            if found or wanted:
                self.send(200, json.dumps(found).encode())
            else:
                self.send(404, b"{}", error="EntryNotFound")

    def refuse(self, name: str) -> None:
        if name == "ann/gated":
            self.send(403, b"{}", error="GatedRepo")
        else:
            self.send(404, b"{}", error="RepoNotFound")

    def send(self, status: int, content: bytes, *, commit: str = "", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag(content)}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def files_of(name: str, revision: str) -> dict[str, bytes]:
    is_older = REVISIONS[revision] == BEFORE
    return OLDER.get(name, DATASETS[name]) if is_older else DATASETS[name]


def entries(files: dict[str, bytes], folder: str, wanted: list[str] | None) -> list[dict[str, Any]]:
    folders = {"/".join(name.split("/")[:-1]) for name in files if "/" in name}
    found: list[dict[str, Any]] = [
        {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
        for name, content in files.items()
    ]
    found += [{"type": "directory", "path": name, "oid": "0" * 40} for name in sorted(folders)]
    if wanted is not None:
        return [entry for entry in found if entry["path"] in wanted]
    return [entry for entry in found if not folder or entry["path"].startswith(f"{folder}/")]


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def ask(home: Path, endpoint: str, *calls: list[Any], **environment: str) -> list[Any]:
    """What the engine's functions answer in a process with a hub of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(calls)],
        cwd=PROJECT,
        env={**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, with_torch = json.loads(done.stdout)
    assert not with_torch
    return answers


def rows(*questions: str) -> list[Any]:
    found = [{"question": one, "answer": f"{one}!"} for one in questions]
    numbered = [[number, row] for number, row in enumerate(found, 1)]
    return ["a dataset of the hub", "row", numbered]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def unreachable() -> str:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Path:
    """A cache after the first visit."""
    home = tmp_path_factory.mktemp("hf")
    answers = ask(
        home,
        endpoint,
        ["pin", "ann/chats", None],
        ["pin", "ann/chats", "v1"],
        ["open", "ann/chats", None, None, BEFORE],
        ["open", "ann/chats", None, None, NOW],
        ["open", "ann/parts", "cooking", None, NOW],
        ["open", "ann/parts", "cooking", "test", "main"],
    )
    assert answers[:4] == [NOW, BEFORE, rows("Old"), rows("Hi", "Ho")]
    assert [len(answer[2]) for answer in answers[4:]] == [3, 1]
    assert answers[5][2] == [[1, json.loads(LINE)]]
    return home


def test_offline_the_pinned_commit_is_read_and_no_other(home: Path, endpoint: str) -> None:
    before = len(Hub.asked)
    answers = ask(
        home,
        endpoint,
        ["pin", "ann/chats", None],
        ["open", "ann/chats", None, None, BEFORE],
        ["open", "ann/chats", None, "train", NOW],
        ["open", "ann/parts", "cooking", "test", NOW],
        ["open", "ann/parts", "cooking", "test", BEFORE],
        ["open", "ann/parts", "sailing", None, NOW],
        ["pin", "ann/never", None],
        ["open", "ann/never", None, None, NOW],
        HF_HUB_OFFLINE="1",
    )
    assert answers[:3] == [NOW, rows("Old"), rows("Hi", "Ho")]
    assert answers[3][2] == [[1, json.loads(LINE)]]
    names = ("ann/parts", "ann/parts", "ann/never", "ann/never")
    assert answers[4:] == [NOT_HERE.format(name) for name in names]
    assert len(Hub.asked) == before


def test_a_hub_out_of_reach_is_as_offline(home: Path, unreachable: str) -> None:
    answers = ask(
        home,
        unreachable,
        ["pin", "ann/chats", "v1"],
        ["open", "ann/parts", "cooking", None, NOW],
        ["pin", "ann/never", None],
        ["open", "ann/never", None, None, NOW],
    )
    assert answers[0] == BEFORE
    assert len(answers[1][2]) == 3
    assert answers[2:] == [NOT_HERE.format("ann/never")] * 2


def test_parts_and_splits_are_named_where_there_is_a_choice(home: Path, endpoint: str) -> None:
    answers = ask(
        home,
        endpoint,
        ["open", "ann/parts", None, None, NOW],
        ["open", "ann/parts", "flying", None, NOW],
        ["open", "ann/parts", "cooking", "validation", NOW],
        ["open", "ann/parts", "sailing", "test", NOW],
        ["open", "ann/tests", None, None, NOW],
        ["open", "ann/tests", None, "test", NOW],
    )
    assert answers[:5] == [
        "data.config: ann/parts has several parts. Choose one of: cooking, sailing.",
        "data.config: ann/parts has no part 'flying'. It has: cooking, sailing.",
        "data.split: ann/parts has no split 'validation'. It has: train, test.",
        "data.split: ann/parts has no split 'test'. It has: train.",
        "data.split: ann/tests has no split 'train'. It has: test.",
    ]
    assert answers[5][2] == [[1, {"question": "Hi", "answer": "Ho"}]]


def test_what_cannot_be_had_is_told_in_one_sentence(home: Path, endpoint: str) -> None:
    absent, gated, name, revision, script, nothing, broken = ask(
        home,
        endpoint,
        ["pin", "ann/absent", None],
        ["open", "ann/gated", None, None, None],
        ["pin", "ann/a--b", None],
        ["open", "ann/chats", None, None, "v9"],
        ["open", "ann/script", None, None, None],
        ["open", "ann/nothing", None, None, None],
        ["open", "ann/broken", None, None, None],
    )
    assert absent.startswith("data.source: the hub has no dataset ann/absent, or it is private.")
    assert gated.startswith("data.source: the hub gives ann/gated only to those who accepted")
    assert name.startswith("data.source: 'ann/a--b' cannot be a name on the hub. Use owner/name")
    assert revision == "data.revision: ann/chats has no revision v9. Leave it out."
    assert script == (
        "data.source: ann/script can be read only by a program of its own, which is never run. "
        "Choose a copy of it with plain files, such as Parquet."
    )
    assert nothing == "data.source: ann/nothing holds no file of records. Choose another dataset."
    assert broken.startswith("data.source: ann/broken cannot be read: ")
    assert broken.endswith("Download one of its files and name that.")


def test_nothing_but_the_data_is_asked_for(home: Path, endpoint: str) -> None:
    assert not any("download" in line and ".py" in line for line in Hub.asked)
    places = {line.split()[1].split("/")[1] for line in Hub.asked}
    assert places == {"api", "datasets"}
