"""Exports and downloads in a real browser: names that attack are text, and consent comes first."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from engine.contract.run_dir import RunDir
from tests.browser import App, Watched, open_compare, open_tab
from tests.tuned_copy import tuned_copy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

WRITTEN_MS = 120_000
ATTACK = "<img src=x onerror=window.__xss=1>"


@pytest.mark.skipif(sys.platform == "win32", reason="no folder may be called so")
def test_an_export_s_name_is_only_text_and_a_cancelled_one_is_gone(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
    tmp_path: Path,
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    page.wait_for_selector("text=What is exported: moved.")
    # Every weight was tuned, so there is no adapter to take.
    forms = page.locator("[data-part=export-form] option:not([disabled])")
    assert forms.evaluate_all("all => all.map((one) => one.value)") == ["hf", "q8_0", "f16"]
    assert "moved-hf" in page.inner_text("[data-part=export-usual]")
    place = tmp_path / ATTACK
    page.get_by_label("New folder").fill(str(place))
    page.get_by_role("button", name="Export", exact=True).click()
    page.wait_for_selector("[data-part=export-path]:not([hidden])", timeout=WRITTEN_MS)
    assert page.inner_text("[data-part=export-path]") == str(place)
    assert (place / "config.json").is_file()
    # What is in the way is told with the name, too.
    page.get_by_role("button", name="Export", exact=True).click()
    page.wait_for_selector("[data-part=export-state].bad:not([hidden])", timeout=WRITTEN_MS)
    assert f"{ATTACK} is not empty." in page.inner_text("[data-part=export-state]")
    assert page.locator("#compare img").count() == 0
    assert page.evaluate("window.__xss") is None

    page.get_by_label("New folder").fill(str(tmp_path / "other"))
    page.locator("[data-part=export-form]").select_option("f16")
    page.get_by_role("button", name="Export", exact=True).click()
    cancel = page.locator("[data-do=cancel][data-what=export]")
    cancel.wait_for(state="visible")
    cancel.click()
    cancel.wait_for(state="hidden")
    assert page.get_by_role("button", name="Export", exact=True).is_enabled()
    assert not (tmp_path / "other").exists()
    watched.assert_clean()


def test_offline_a_model_that_is_not_here_cannot_be_asked(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    page.locator("#cmp-left").select_option("opt-1.3b")
    page.wait_for_selector("[data-part=download]:not([hidden])")
    assert "start it without --offline" in page.inner_text("[data-part=download]")
    assert page.get_by_role("button", name="Allow the download").is_hidden()
    watched.assert_clean()


def test_a_download_is_asked_for_before_anything_is_fetched(
    tmp_path: Path,
    browser: Browser,
) -> None:
    tuned_copy(tmp_path / "runs")
    online = App(tmp_path / "runs", network=())
    online.start()
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(online.url)
        open_tab(page, "Compare")
        page.wait_for_selector("#cmp-right option:checked", state="attached")
        allow_a_download(page)
    finally:
        context.close()
        online.end(signal.SIGINT)


def allow_a_download(page: Page) -> None:
    page.locator("#cmp-left").select_option("opt-1.3b")
    page.wait_for_selector("[data-part=download]:not([hidden])")
    asked = page.inner_text("[data-part=download]")
    assert "Not on this computer: facebook/opt-1.3b (about 2.5 GiB in 16 bits)." in asked
    field = page.get_by_label("Question", exact=True)
    field.fill("Who are you?")
    field.press("Enter")
    page.wait_for_selector("[data-part=problem]:not([hidden])")
    assert "Allow the download, or choose another model." in page.inner_text("[data-part=problem]")
    # The question is still there to be asked.
    assert field.input_value() == "Who are you?"
    page.get_by_role("button", name="Allow the download").click()
    page.wait_for_selector("[data-part=download]", state="hidden")
