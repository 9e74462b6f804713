"""What stands on the page while a person fills it in, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from engine.contract.events import EventWriter
from engine.contract.identity import current_identity
from tests.browser import LOSS, App, Watched
from tests.test_gui_golden import golden_run, result, write_step

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

MEMORY = "document.querySelector('[data-plot=memory]')"


def choose(page: Page, method: str) -> None:
    page.locator(f"input[name=method][value={method}]").check()
    page.wait_for_selector(f"input[name=method][value={method}][checked]")


def test_what_is_pasted_is_asked_for(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    choose(page, "lora")
    page.get_by_role("button", name="LoRA settings").click()
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="Show command").click()
    copied = page.get_by_label("Run name")
    copied.fill("q_proj")
    page.wait_for_selector("text=--name q_proj")
    copied.press("Control+a")
    copied.press("Control+x")
    page.wait_for_function("!document.body.innerText.includes('--name')")
    page.wait_for_timeout(1_000)  # no answer to what was typed so far is on its way
    targets = page.get_by_label("Targets")
    targets.press("Control+a")
    targets.press("Control+v")
    targets.press("Tab")
    page.wait_for_function(
        "document.querySelector('.q-code').innerText.includes('targets: q_proj')"
    )
    rank = page.get_by_label("Rank", exact=True)
    rank.fill("")
    assert rank.get_attribute("placeholder") == "16"
    watched.assert_clean()


def test_another_method_empties_what_was_typed_for_the_last(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    page.get_by_role("button", name="More").click()
    page.get_by_label("Learning rate").fill("0.5")
    page.get_by_label("Seed").fill("7")
    page.wait_for_function("document.body.innerText.includes('0.5, linear')")
    choose(page, "lomo")
    page.wait_for_function("document.body.innerText.includes('1, linear')")
    assert page.get_by_label("Learning rate").input_value() == ""
    assert page.get_by_label("Seed").input_value() == "7"
    page.get_by_role("button", name="LOMO settings").click()
    assert page.get_by_label("Clip value", exact=True).count() == 0
    page.get_by_label("Clip", exact=True).click()
    page.get_by_role("option", name="Value", exact=True).click()
    page.get_by_label("Clip value", exact=True).wait_for()
    watched.assert_clean()


def test_the_forecast_stays_in_view(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    page = open_page().page
    page.get_by_role("button", name="More").click()
    page.get_by_label("Seed").scroll_into_view_if_needed()
    page.wait_for_function("scrollY > 300")
    box = page.locator(".q-aside").bounding_box()
    assert box is not None
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 860
    assert page.get_by_role("button", name="Start training").is_visible()


def test_there_are_no_axes_before_the_first_point(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    run = golden_run(app.runs, "young", done=0, outcome=None)
    run.write_owner(current_identity().as_json())
    watched = open_page(shows="[data-empty=memory]")
    page = watched.page
    page.wait_for_function(f"{LOSS}.data?.[2].x.length === 1")  # the measurement before step 1
    assert not page.locator("[data-plot=memory]").is_visible()
    assert page.locator("[data-empty=memory]").is_visible()
    with EventWriter(run.events_path, 1) as log:
        write_step(log, 1, 60, 6.0)
    page.wait_for_function(f"{MEMORY}.data?.[1].x.length === 1")
    assert page.locator("[data-plot=memory]").is_visible()
    assert not page.locator("[data-empty=memory]").is_visible()
    run.write_result(result("stopped", 1))
    watched.assert_clean()
