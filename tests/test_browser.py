"""The whole app in a real browser: what a person does on the first evening, and what may go wrong.

Everything runs offline on this computer: every name but the loopback address fails to resolve.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from engine.contract.events import EventReader, EventWriter
from engine.contract.history import RunHistory
from engine.contract.identity import current_identity
from engine.contract.run_dir import RunDir
from tests.browser import ATTACK, LOSS, App, Watched, open_tab, wait_for
from tests.test_gui_golden import golden_run, result, write_step

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

# The connection that a killed app drops, and the page's own attempts to find it again.
LOST_CONNECTION = ("ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE", "fetch")


def only_run(app: App) -> RunDir:
    (spec,) = app.runs.glob("*/spec.json")
    return RunDir(spec.parent)


def num_points(page: Page) -> int:
    return page.evaluate(f"{LOSS}?.data?.[0]?.x.length ?? 0")


def start(page: Page, **fields: str) -> None:
    """Press Start on the default form, with some fields of "More" filled in."""
    if fields:
        page.get_by_role("button", name="More").click()
    for label, value in fields.items():
        page.get_by_label(label, exact=True).fill(value)
    page.wait_for_selector(".q-hero")
    page.get_by_role("button", name="Start training").dblclick()
    page.wait_for_selector("[data-plot=loss]")


def test_from_start_to_two_different_answers(app: App, open_page: Callable[..., Watched]) -> None:
    watched = open_page()
    page = watched.page
    start(page)
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) > 1", timeout=120_000)
    assert len(list(app.runs.glob("*/spec.json"))) == 1
    page.evaluate(f"window.chart = {LOSS}")
    first = num_points(page)
    page.wait_for_function(f"{LOSS}.data[0].x.length > {first} + 3", timeout=120_000)
    page.wait_for_selector(".q-head .q-st.good", timeout=300_000)
    page.wait_for_function(f"{LOSS}.data[0].x.length === 60")
    assert page.evaluate(f"window.chart === {LOSS}")
    assert "fell from" in page.inner_text(".q-read")
    page.get_by_role("button", name="Compare with the original").click()
    page.get_by_label("Question", exact=True).fill("Who are you?")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_function(
        "(lines => lines.length === 2 && lines.every(one => one.textContent.includes('tokens/s')))"
        "([...document.querySelectorAll('.q-cmp-talk .q-side-line')])",
        timeout=120_000,
    )
    base, tuned = page.locator(".q-cmp-talk .q-cmp-text").all_text_contents()
    assert base.strip()
    assert tuned.strip()
    assert base != tuned
    page.wait_for_selector("[data-part=proof].good")
    assert "Checked: two different models" in page.inner_text("[data-part=proof]")
    watched.assert_clean()


def test_the_window_may_reload_and_die_while_a_run_goes_on(
    app: App, open_page: Callable[..., Watched]
) -> None:
    watched = open_page()
    watched.allowed = LOST_CONNECTION
    page = watched.page
    start(page, Steps="4000")
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) > 2", timeout=120_000)
    page.reload()
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) > 2")
    app.end(signal.SIGKILL)
    before = len(steps_in_log(only_run(app)))
    wait_for(lambda: len(steps_in_log(only_run(app))) > before, seconds=60)
    app.start()
    page.goto(app.url)
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) > {before}")
    page.get_by_role("button", name="Stop and keep").click()
    page.wait_for_selector("text=Stopped at step", timeout=120_000)
    page.wait_for_timeout(2_500)
    shown = page.evaluate(f"{LOSS}.data[0].x")
    logged = steps_in_log(only_run(app))
    assert (shown[0], shown[-1]) == (1, logged[-1])
    assert len(shown) == len(logged) or len(logged) > 600
    resume_and_discard(app, page, logged[-1])
    watched.assert_clean()


def resume_and_discard(app: App, page: Page, last_step: int) -> None:
    run = only_run(app)
    page.get_by_role("button", name="Resume").click()
    page.wait_for_function(f"{LOSS}.data[0].x.at(-1) > {last_step} + 2", timeout=120_000)
    assert run.attempt() == 2
    page.get_by_role("button", name="Discard…").click()
    page.get_by_role("button", name="Keep it").click()
    assert run.stop_request() is None
    page.get_by_role("button", name="Discard…").click()
    page.get_by_role("button", name="Delete this run").click()
    wait_for(lambda: not run.path.exists(), seconds=60)
    page.wait_for_selector(".q-no-run")


def steps_in_log(run: RunDir) -> list[int]:
    history = RunHistory()
    history.add(EventReader(run.events_path).read())
    return sorted(history.steps)


@pytest.mark.parametrize(
    ("width", "theme"),
    [
        (390, "dark"),
        (1280, "light"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_no_page_scrolls_sideways(
    app: App, open_page: Callable[..., Watched], width: int, theme: str
) -> None:
    golden_run(app.runs, f"finished-{theme}-{width}")
    error = {"class": "out_of_memory", "message": "Ran out at step 14.", "advice": "Batch 4."}
    golden_run(app.runs, f"failed-{theme}-{width}", done=14, outcome="out_of_memory", error=error)
    watched = open_page(width, theme)
    page = watched.page
    for name in ("Setup", "Run", "Compare", "Runs"):
        open_tab(page, name)
        page.wait_for_timeout(1_200)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        small = page.evaluate(
            "[...document.querySelectorAll('button, .q-methods label')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.5)"
            ".map(e => e.innerText || e.ariaLabel || e.className)"
        )
        assert small == [], f"targets below 44 px on {name}"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, textarea')].filter(e => e.offsetParent"
            " && !e.labels?.length && !e.ariaLabel && !e.getAttribute('aria-labelledby'))"
            ".map(e => e.outerHTML.slice(0, 120))"
        )
        assert unnamed == [], f"inputs without a label on {name}"
    watched.assert_clean()


def test_text_from_runs_is_only_text(app: App, open_page: Callable[..., Watched]) -> None:
    error = {"class": "bad_data", "message": ATTACK, "advice": ATTACK}
    golden_run(app.runs, "attack", done=30, outcome="failed", error=error, reply=ATTACK)
    watched = open_page()
    page = watched.page
    open_tab(page, "Runs")
    page.get_by_role("button", name="Open attack").click()
    page.wait_for_selector(".q-fail")
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) === 30")
    assert ATTACK in page.inner_text(".q-fail")
    assert ATTACK in page.inner_text(".q-replies")
    assert page.evaluate("window.__xss") is None
    watched.assert_clean()


def test_a_zoom_survives_new_points(app: App, open_page: Callable[..., Watched]) -> None:
    run = golden_run(app.runs, "growing", done=30, outcome=None)
    run.write_owner(current_identity().as_json())
    watched = open_page(shows="[data-plot=loss]")
    page = watched.page
    page.wait_for_function(f"({LOSS}?.data?.[0]?.x.length ?? 0) === 30")
    box = page.locator("[data-plot=loss] .nsewdrag").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 120, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    zoomed = page.evaluate(f"{LOSS}._fullLayout.xaxis.range")
    with EventWriter(run.events_path, 1) as log:
        for step in range(31, 37):
            write_step(log, step, 60, 6.0)
    page.wait_for_function(f"{LOSS}.data[0].x.length === 36")
    assert page.evaluate(f"{LOSS}._fullLayout.xaxis.range") == zoomed
    run.write_result(result("stopped", 36))
    watched.assert_clean()


def test_a_mistake_stands_at_its_field_and_start_waits(
    app: App, open_page: Callable[..., Watched]
) -> None:
    watched = open_page()
    page = watched.page
    page.get_by_role("button", name="More").click()
    page.get_by_label("Batch size").fill("0")
    page.wait_for_selector(".q-waits")
    assert page.get_by_role("button", name="Start training").is_disabled()
    assert "greater than or equal to 1" in page.inner_text(".q-wrong")
    page.get_by_label("Batch size").fill("4")
    page.wait_for_selector(".q-hero")
    assert page.get_by_role("button", name="Start training").is_enabled()
    assert not list(app.runs.glob("*/spec.json"))
    watched.assert_clean()


def test_each_method_brings_its_own_settings(app: App, open_page: Callable[..., Watched]) -> None:
    watched = open_page()
    page = watched.page
    page.get_by_role("button", name="QFT settings").click()
    page.get_by_role("button", name="Show command").click()
    shown = {
        "qlora-paper": {"Rank": "64", "Optimizer": "Paged AdamW"},
        "qlora-balanced": {"Rank": "16", "Double quantization": "On"},
        "lora": {"Alpha": "32", "Dropout": "0"},
        "lomo": {"Clip": "Two pass norm"},
        "adalomo": {"Clip": "None"},
        "full": {"Optimizer": "AdamW", "Precision": "Mixed"},
        "qft-lean": {"Residual": "None", "Moments": "4 bits"},
    }
    for key, values in shown.items():
        page.locator(f"input[name=method][value={key}]").check()
        page.wait_for_selector(f"input[name=method][value={key}][checked]")
        for label, value in values.items():
            assert page.get_by_label(label, exact=True).input_value() == value, key
    page.locator("input[name=method][value=lora]").check()
    page.get_by_label("Rank", exact=True).fill("8")
    page.wait_for_selector("text=LoRA, changed")
    assert "  kind: lora\n  rank: 8\n" in page.inner_text(".q-code >> nth=0")
    page.get_by_role("button", name="Undo the changes").click()
    page.wait_for_function("!document.body.innerText.includes('LoRA, changed')")
    assert page.get_by_label("Rank", exact=True).input_value() == "16"
    assert "rank" not in page.inner_text(".q-code >> nth=0")
    watched.assert_clean()
