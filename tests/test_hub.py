"""The hub's real client against a small hub on this computer: online, offline, out of reach."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

PROJECT = Path(__file__).parents[1]
HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": struct.pack("<Q", len(HEADER)) + HEADER + bytes(8),
    "pytorch_model.bin": b"a pickle that nobody asked for",
    "modeling.py": b"raise SystemExit",
}
DESCRIPTION = ["chat_template.jinja", "config.json", "tokenizer.json"]
NOW, TAGGED = "a" * 40, "b" * 40
REVISIONS = {"main": NOW, "v1": TAGGED, NOW: NOW, TAGGED: TAGGED}
MODELS = ("ann/tiny", "ann/other")
NOT_HERE = (
    "model.source: {} is not on this computer and the hub cannot be reached. "
    "Go online once, or name a folder."
)

DRIVER = """
import json, sys
from engine import hub
from engine.contract.errors import RequestError, RequestErrors
from engine.contract.spec_file import validate_spec
from engine.request import complete

def call(name, *arguments):
    if name == "download":
        folder = hub.download(*arguments[:2], weights=arguments[2])
        return sorted(file.name for file in folder.iterdir())
    if name == "complete":
        return complete(validate_spec(arguments[0])).model.revision
    return hub.pin_revision(*arguments)

answers = []
for name, *arguments in json.loads(sys.argv[1]):
    try:
        answers.append(call(name, *arguments))
    except (RequestError, RequestErrors) as error:
        answers.append(str(error))
print(json.dumps([answers, "torch" in sys.modules]))
"""


class Hub(BaseHTTPRequestHandler):
    """Model info, file list and files, as the hub gives them."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            model, _, rest = path.removeprefix("/api/models/").partition("/revision/")
            model, _, listed = model.partition("/tree/")
            self.answer_about(model, rest or listed or "main", listed=bool(listed))
            return
        model, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if model in MODELS and revision in REVISIONS and name in FILES:
            self.send(200, FILES[name], commit=REVISIONS[revision])
        else:
            self.send(404, b"{}", error="EntryNotFound")

    def answer_about(self, model: str, revision: str, *, listed: bool) -> None:
        if model == "ann/gated":
            self.send(403, b"{}", error="GatedRepo")
        elif model == "ann/broken":
            self.send(500, b"<html>")
        elif model not in MODELS:
            self.send(404, b"{}", error="RepoNotFound")
        elif revision not in REVISIONS:
            self.send(404, b"{}", error="RevisionNotFound")
        elif listed:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                for name, content in FILES.items()
            ]
            self.send(200, json.dumps(entries).encode())
        else:
            info: dict[str, Any] = {"id": model, "sha": REVISIONS[revision]}
            info["siblings"] = [{"rfilename": name} for name in FILES]
            self.send(200, json.dumps(info).encode())

    def send(self, status: int, content: bytes, *, commit: str = "", error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag(content)}"')
        if commit:
            self.send_header("X-Repo-Commit", commit)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


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
    # A model never seen before is inspected; looking it up and fetching it need no torch.
    assert not with_torch or "complete" in {call[0] for call in calls}
    return answers


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
    """A cache after the first visit: one model whole, one described only."""
    home = tmp_path_factory.mktemp("hf")
    answers = ask(
        home,
        endpoint,
        ["pin_revision", "ann/tiny", None],
        ["pin_revision", "ann/tiny", "v1"],
        ["pin_revision", "ann/other", None],
        ["download", "ann/tiny", NOW, False],
    )
    assert answers == [NOW, TAGGED, NOW, DESCRIPTION]
    assert not any("model.safetensors" in line for line in Hub.asked)
    (whole,) = ask(home, endpoint, ["download", "ann/tiny", NOW, True])
    assert whole == sorted([*DESCRIPTION, "model.safetensors"])
    assert not any(".bin" in line or ".py" in line for line in Hub.asked)
    return home


def request(source: str) -> dict[str, Any]:
    return {
        "model": {"source": source},
        "data": {"source": "pirate"},
        "method": {"kind": "qft"},
        "train": {"device": "cpu"},
    }


def test_offline_everything_that_was_fetched_still_works(home: Path, endpoint: str) -> None:
    before = len(Hub.asked)
    answers = ask(
        home,
        endpoint,
        ["pin_revision", "ann/tiny", None],
        ["pin_revision", "ann/tiny", "v1"],
        ["pin_revision", "ann/tiny", NOW],
        ["download", "ann/tiny", NOW, True],
        ["complete", request("ann/tiny")],
        HF_HUB_OFFLINE="1",
    )
    assert answers == [NOW, TAGGED, NOW, sorted([*DESCRIPTION, "model.safetensors"]), NOW]
    assert len(Hub.asked) == before


def test_offline_what_was_not_fetched_is_refused(home: Path, endpoint: str) -> None:
    answers = ask(
        home,
        endpoint,
        ["download", "ann/other", NOW, True],
        ["pin_revision", "ann/tiny", "v2"],
        ["pin_revision", "ann/never", None],
        ["complete", request("ann/never")],
        HF_HUB_OFFLINE="1",
    )
    names = ("ann/other", "ann/tiny", "ann/never", "ann/never")
    assert answers == [NOT_HERE.format(name) for name in names]


def test_a_hub_out_of_reach_is_as_offline(home: Path, unreachable: str) -> None:
    answers = ask(
        home,
        unreachable,
        ["pin_revision", "ann/tiny", None],
        ["download", "ann/tiny", NOW, True],
        ["pin_revision", "ann/never", None],
        ["download", "ann/never", None, False],
    )
    assert answers[:2] == [NOW, sorted([*DESCRIPTION, "model.safetensors"])]
    assert answers[2:] == [NOT_HERE.format("ann/never")] * 2


def test_what_the_hub_refuses_is_told_in_one_sentence(home: Path, endpoint: str) -> None:
    names = ["ann/absent", "ann/gated", "ann/broken", "ann/a--b", "ann/b.git"]
    answers = ask(
        home,
        endpoint,
        *(["pin_revision", name, None] for name in names),
        ["pin_revision", "ann/tiny", "v9"],
        ["complete", request("ann/absent")],
    )
    absent, gated, broken, dashes, git, revision, completed = answers
    assert absent.startswith("model.source: the hub has no model ann/absent, or it is private.")
    assert gated.startswith("model.source: the hub gives ann/gated only to those who accepted")
    assert gated.endswith("then log in with `hf auth login`.")
    assert broken == NOT_HERE.format("ann/broken")
    assert dashes == (
        "model.source: 'ann/a--b' cannot be a name on the hub. Use owner/name, or a folder."
    )
    assert git.startswith("model.source: 'ann/b.git' cannot be a name on the hub.")
    assert revision == "model.revision: ann/tiny has no revision v9. Leave it out."
    assert completed == absent
    assert not any("\n" in answer for answer in answers)
