"""The X-ray page: what it says of an answer, and how it gets one from the real engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.contract.errors import RequestError
from qft_gui.form import OTHER
from qft_gui.pages.xray import FORGOTTEN, RUN, _Desk
from qft_gui.pages.xray_layout import OWN
from qft_gui.service import Service
from qft_gui.view import xray as view
from qft_gui.view.sentences import sentence
from qft_gui.xrays import MOST_ANSWERS, Job, Wish, XrayAnswer, Xrays
from tests.test_gui_golden import golden_run
from tests.tiny import tiny_model_folder

CENTRES = [number / 4 for number in range(-32, 33)]
BELL = 0.0063


def seen(outliers: float = BELL, errors: bool = True, **more: Any) -> dict[str, Any]:
    histogram = [0.0] * len(CENTRES)
    histogram[32], histogram[0] = 99.0, 1.0
    return {
        "num_sampled": 4096,
        "rms": 0.1,
        "largest": 1.2,
        "kurtosis": None,
        "outlier_percent": outliers,
        "top_percent": 8.5,
        "histogram_percent": histogram,
        "outside_percent": 0.0,
        "error_percent": {"row": 0.9, "group": 0.6, "hybrid": 0.3} if errors else None,
        **more,
    }


def tensor(layer: int | None, part: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return seen(name=f"{layer}.{part}", layer=layer, part=part, shape=shape, **more)


def answer(**changes: Any) -> XrayAnswer:
    tensors = [
        tensor(None, "embed_tokens", [320, 32]),
        tensor(0, "mlp.up_proj", [64, 32], outliers=0.2),
        tensor(0, "input_layernorm", [32], errors=False),
        tensor(1, "mlp.up_proj", [64, 32]),
    ]
    layers = [
        seen(label="model.embed_tokens"),
        seen(label="layer 0", outliers=0.63),
        seen(label="layer 1"),
    ]
    kinds = [
        {"kind": kind, "layers": layers, "tensors": tensors}
        for kind in ("weights", "gradients", "exp_avg_sq")
    ]
    document = {
        "name": "tiny",
        "step": 1200,
        "data": "/home/a/chats.jsonl",
        "num_parameters": 3_934_464,
        "bin_centres": CENTRES,
        "kinds": kinds,
        "notes": ["A note."],
        **changes,
    }
    return XrayAnswer.model_validate(document)


# -------------------------------------------------------------------------------------- view


def test_the_choices_are_what_the_answer_has() -> None:
    assert view.kind_choices(answer()) == [
        ("Weights", "weights"),
        ("Gradients", "gradients"),
        ("Squared gradients", "exp_avg_sq"),
    ]
    assert [value for _, value in view.part_choices(answer())] == [view.ALL, "mlp.up_proj"]


def test_the_head_says_what_was_looked_at() -> None:
    head = view.head(answer())
    assert head["about"] == (
        "tiny · 3.93 million parameters · after step 1,200 · gradients from chats.jsonl"
    )
    assert head["notes"] == ["A note."]
    bare = view.head(answer(step=None, data=None, notes=[]))
    assert bare == {"about": "tiny · 3.93 million parameters", "notes": []}


def test_the_figure_has_a_row_for_each_layer_and_one_for_the_bell() -> None:
    figure = view.figure(answer(), "weights", view.ALL)
    assert figure["layers"] == ["embedding", "layer 0", "layer 1"]
    assert figure["rows"] == [*figure["layers"], view.BELL]
    assert [len(row) for row in figure["log"]] == [len(CENTRES)] * 4
    assert figure["log"][0][1] is None
    assert figure["log"][0][0] == 0
    assert figure["outliers"] == [BELL, 0.63, BELL]
    assert figure["errors"]["hybrid"] == [0.3, 0.3, 0.3]
    assert sum(figure["percent"][3]) == pytest.approx(100, abs=0.01)


def test_one_matrix_of_each_layer_can_be_shown() -> None:
    figure = view.figure(answer(), "gradients", "mlp.up_proj")
    assert figure["layers"] == ["layer 0", "layer 1"]
    assert figure["outliers"] == [0.2, BELL]
    assert view.figure(answer(), "no such kind", view.ALL)["layers"] == []


def test_a_sentence_reads_each_plot() -> None:
    said = view.readings(answer(), "weights", view.ALL)
    assert said["spread"] == "The farthest value stands in embedding, at 12 times the rms."
    assert said["outliers"] == "Most in layer 0: 0.63 %, 99 times a normal bell's."
    assert said["errors"] == (
        "On average 0.9 % per row, 0.6 % per 32, 0.3 % hybrid: keeping the largest apart pays here."
    )


def test_without_outliers_a_sentence_says_so() -> None:
    layers = [seen(label=f"layer {number}", outliers=0.0) for number in range(2)]
    one = answer(kinds=[{"kind": "weights", "layers": layers, "tensors": []}])
    said = view.readings(one, "weights", view.ALL)
    assert said["outliers"] == "No layer has a value beyond 4 times its rms."


def test_a_few_outliers_of_a_small_matrix_are_no_news() -> None:
    two_of_4096 = 100 * 2 / 4096
    layers = [seen(label="layer 0", outliers=two_of_4096)]
    one = answer(kinds=[{"kind": "weights", "layers": layers, "tensors": []}])
    said = view.readings(one, "weights", view.ALL)["outliers"]
    assert said == "Most in layer 0: 0.049 %, as a normal bell may have."


def test_what_is_all_zero_is_called_so() -> None:
    zero = {"rms": 0.0, "largest": 0.0, "error_percent": None, "outlier_percent": 0.0}
    layers = [{**seen(label="layer 0"), **zero}]
    one = answer(kinds=[{"kind": "momentum", "layers": layers, "tensors": []}])
    assert view.readings(one, "momentum", view.ALL)["errors"] == "All of these values are zero."
    assert view.figure(one, "momentum", view.ALL)["errors"]["row"] == [None]
    assert view.table(one, "momentum", view.ALL)["rows"][0]["cells"][-1] == "–"


# ---------------------------------------------------------------------------------- the engine


def wait(xrays: Xrays, key: str) -> Job:
    deadline = time.monotonic() + 60
    while True:
        job = xrays.look(key)
        assert job is not None
        if job.is_over:
            return job
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def xrays(tmp_path: Path) -> Any:
    made = Xrays(tmp_path / "runs")
    yield made
    made.close()


def test_an_answer_comes_once_and_is_remembered(
    xrays: Xrays, tmp_path: Path, chats_file: Path
) -> None:
    folder = tiny_model_folder(tmp_path / "model")
    wish = Wish(str(folder), str(chats_file))
    key = xrays.take(wish)
    job = wait(xrays, key)
    assert job.error is None
    assert job.answer is not None
    assert [one.kind for one in job.answer.kinds] == ["weights", "gradients"]
    assert job.phase == "computing the gradients…"
    assert xrays.look(xrays.take(wish)) is job
    figure = view.figure(job.answer, "gradients", view.ALL)
    assert figure["layers"] == ["embedding", "layer 0", "layer 1", "head"]
    assert all(view.readings(job.answer, "weights", view.ALL).values())
    (folder / "config.json").touch()
    assert wish.state() != key


def test_the_engines_mistakes_are_sentences(xrays: Xrays) -> None:
    job = wait(xrays, xrays.take(Wish("--no-such-model")))
    assert job.error is not None
    assert "There is no folder and no model" in sentence(job.error)


def test_a_cancelled_one_ends_and_can_be_taken_again(xrays: Xrays) -> None:
    wish = Wish("starter")
    key = xrays.take(wish)
    job = xrays.look(key)
    assert job is not None
    while job.process is None:
        time.sleep(0.01)
    xrays.cancel(key)
    assert job.process.wait(60) != 0
    xrays.take(wish)
    assert xrays.look(key) is not job
    xrays.cancel(key)


def test_old_answers_are_forgotten(xrays: Xrays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Xrays, "_ask", lambda self, job: answer())
    keys = [xrays.take(Wish(f"owner/model-{number}")) for number in range(MOST_ANSWERS + 3)]
    for key in keys[-3:]:
        wait(xrays, key)
    last = xrays.take(Wish("owner/last"))
    assert xrays.look(keys[0]) is None
    assert xrays.look(last) is not None


def test_a_growing_log_does_not_make_an_answer_old(tmp_path: Path) -> None:
    run = golden_run(tmp_path / "runs")
    wish = Wish(str(run.path))
    before = wish.state()
    with run.events_path.open("a") as log:
        log.write("\n")
    assert wish.state() == before
    (run.checkpoints / "step-000010").mkdir()
    assert wish.state() != before


# ------------------------------------------------------------------------------------ the page


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Desk:
    monkeypatch.setattr(Xrays, "_ask", lambda self, job: answer())
    golden_run(tmp_path / "runs", "one")
    return _Desk(Service(tmp_path / "runs"), Xrays(tmp_path / "runs"))


def taken(desk: _Desk, *wish: str | None) -> list[Any]:
    key, *shown = desk.take(*wish, None, None)  # type: ignore[arg-type]
    deadline = time.monotonic() + 60
    while desk.look(key)[1].active and time.monotonic() < deadline:
        time.sleep(0.01)
    return [key, *desk.look(key)] if key else [key, *shown]


def test_runs_and_models_are_offered(desk: _Desk) -> None:
    update = desk.offer("gone")
    assert [value for _, value in update.choices] == ["starter", f"{RUN}one", OTHER]
    assert update.value == "starter"
    assert desk.offer(f"{RUN}one").value == f"{RUN}one"


@pytest.mark.parametrize(
    "wish",
    [
        ("starter", "", OWN, ""),
        (f"{RUN}one", "", "pirate", ""),
        (OTHER, " owner/name ", OTHER, " /data/chats.jsonl "),
    ],
)
def test_what_is_chosen_is_taken_and_shown(desk: _Desk, wish: tuple[str, ...]) -> None:
    _, said, clock, cancel, body, head, kind, part, charts, table = taken(desk, *wish)
    assert said == ""
    assert (clock.active, cancel.visible, body.visible) == (False, False, True)
    assert "3.93 million" in head
    assert (kind.value, part.value) == ("weights", view.ALL)
    assert charts.props["figure"]["readings"]["spread"]
    assert "layer 1" in table


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ((OTHER, " ", OWN, ""), "No model is named."),
        (("starter", "", OTHER, ""), "No file is named."),
        ((f"{RUN}gone", "", OWN, ""), "There is no such run."),
        ((f"{RUN}../../etc", "", OWN, ""), "There is no such run."),
    ],
)
def test_what_is_missing_is_a_sentence(desk: _Desk, wish: tuple[str, ...], words: str) -> None:
    key, said, *_ = taken(desk, *wish)
    assert key == ""
    assert words in said


def test_the_page_follows_the_choice(desk: _Desk) -> None:
    key, *_ = taken(desk, "starter", "", OWN, "")
    _, charts, table = desk.show(key, "gradients", "mlp.up_proj")
    assert charts.props["figure"]["layers"] == ["layer 0", "layer 1"]
    assert "<caption" in table
    _, charts, _ = desk.show(key, "<b>", "nonsense")
    assert charts.props["figure"]["title"] == f"tiny weights {view.ALL}"


def test_a_forgotten_answer_is_told(desk: _Desk) -> None:
    assert FORGOTTEN in desk.look("no such key")[0]
    assert FORGOTTEN in desk.show("no such key", None, None)[0]
    assert "cancelled" in desk.cancel("no such key")[0]


def test_waiting_shows_what_is_done(desk: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Wish("starter"), phase="reading the weights…")
    monkeypatch.setattr(Xrays, "look", lambda self, key: job)
    said, clock, cancel, body, *_ = desk.look("key")
    assert "Reading the weights…" in said
    assert (clock.active, cancel.visible, body.visible) == (True, True, False)
    job.error = RequestError("model.source", "it does not load.", "Get it anew.")
    said, clock, *_ = desk.look("key")
    assert "It does not load. Get it anew." in said
    assert not clock.active


def test_the_page_is_built(tmp_path: Path, build_page: Callable[[Path], Any]) -> None:
    blocks = build_page(tmp_path).blocks.values()
    labels = {getattr(block, "label", None) for block in blocks}
    assert {"Model or run", "Gradients from", "Matrices"} <= labels


@pytest.fixture
def build_page() -> Callable[[Path], Any]:
    from qft_gui.chat_client import ChatClient
    from qft_gui.chat_room import ChatRoom, chat_log
    from qft_gui.shell import build_blocks

    def build(runs: Path) -> Any:
        return build_blocks(Service(runs), ChatRoom(ChatClient(chat_log(runs))), "/vendor/p.js")

    return build
