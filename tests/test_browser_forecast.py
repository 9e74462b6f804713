"""The forecast as a person uses it: what a part means, fit it for me, the way back, two steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import App, Watched
from tests.test_browser_setup import choose

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


def take_model(page: Page, name: str) -> None:
    page.get_by_label("Model").first.click()
    page.get_by_role("option", name=name).first.click()


def is_on_screen(tip: Locator, width: int) -> bool:
    box = tip.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_every_part_is_explained_to_the_pointer_and_to_the_keyboard(
    app: App,
    open_page: Callable[..., Watched],
    width: int,
    theme: str,
) -> None:
    watched = open_page(width, theme)
    page = watched.page
    parts = page.locator(".q-terms > li")
    assert parts.count() >= 6
    for number in range(parts.count()):
        part, tip = parts.nth(number), parts.nth(number).locator("[role=tooltip]")
        assert not tip.is_visible()
        part.focus()
        assert tip.is_visible()
        assert is_on_screen(tip, width)
        assert len(tip.inner_text().split(". ")) >= 2
        described = part.get_attribute("aria-describedby")
        assert described == tip.get_attribute("id")
    page.keyboard.press("Escape")
    assert page.locator(".q-tip:visible").count() == 0
    page.locator('.q-bar > [data-term="runtime"]').hover()
    assert page.locator('.q-terms > [data-term="runtime"] .q-tip').is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    watched.assert_clean()


def test_one_click_makes_it_fit_and_undo_takes_it_back(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    take_model(page, "Qwen2.5 0.5B")
    choose(page, "lora")
    page.get_by_role("button", name="More").click()
    batch, times = page.get_by_label("Batch size"), page.get_by_label("Accumulation")
    page.get_by_label("Sequence length").fill("2048")
    batch.fill("4096")
    fit = page.get_by_role("button", name="Fit it for me")
    fit.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Undo", exact=True).wait_for()
    page.wait_for_function("!document.body.innerText.includes('Fit it for me')")
    page.wait_for_function("document.activeElement?.dataset.do === 'undo'")
    assert int(batch.input_value()) * int(times.input_value()) == 4096
    assert int(batch.input_value()) < 4096
    assert "longer" in page.locator(".q-ways").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement?.dataset.do === 'fit'")
    page.wait_for_function("document.body.innerText.includes('Fit it for me')")
    expect(batch).to_have_value("4096")  # fields are drawn one after the other
    expect(times).to_have_value("1")
    watched.assert_clean()


def test_why_start_waits_is_on_screen_beside_it(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="More").click()
    page.get_by_label("Batch size").fill("0")
    page.wait_for_selector(".q-dock .q-waits")
    page.evaluate("scrollTo(0, 0); document.querySelector('.q-aside').scrollTop = 0")
    start = page.get_by_role("button", name="Start training").bounding_box()
    why = page.locator(".q-dock .q-waits").bounding_box()
    assert start is not None
    assert why is not None
    assert 0 <= why["y"] < why["y"] + why["height"] <= start["y"] < 800
    watched.assert_clean()


@pytest.mark.slow
def test_another_method_starts_from_the_persons_own_settings(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    take_model(page, "Qwen2.5 0.5B")
    choose(page, "lora")
    page.get_by_role("button", name="More").click()
    page.get_by_label("Sequence length").fill("2048")
    batch, times = (
        page.get_by_role("spinbutton", name=name) for name in ("Batch size", "Accumulation")
    )
    batch.fill("4096")
    page.get_by_role("button", name="Fit it for me").click()
    page.wait_for_function("!document.body.innerText.includes('Fit it for me')")
    choose(page, "qft-balanced")
    page.get_by_text("What made LoRA fit was taken back.").wait_for()
    assert (batch.input_value(), times.input_value()) == ("4096", "1")
    assert page.locator(".q-dock .q-waits").count() == 0
    watched.assert_clean()


def test_what_changes_the_training_has_a_button_of_its_own(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page(390, "dark")
    page = watched.page
    take_model(page, "Qwen2.5 0.5B")
    page.locator(".q-card", has_text="How").get_by_role("button", name="More").click()
    batch = page.get_by_label("Batch size")
    batch.fill("4096")
    apply = page.get_by_role("button", name="Apply: Batch size").first
    apply.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    apply.click()
    page.get_by_role("button", name="Undo", exact=True).wait_for()
    assert int(batch.input_value()) < 4096
    watched.assert_clean()


@pytest.mark.slow
def test_two_steps_are_tried_and_belong_to_these_settings_only(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    page.get_by_role("button", name="Try two steps").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Try two steps").click()
    page.wait_for_selector("text=Trying two steps")
    page.locator(".q-cards summary").click()
    page.wait_for_selector("text=Tried, fits", timeout=120_000)
    assert page.locator(".q-cards").evaluate("one => one.open")
    page.get_by_role("button", name="More").click()
    page.get_by_label("Seed").fill("7")
    page.wait_for_function("!document.body.innerText.includes('Tried, fits')")
    page.get_by_label("Seed").fill("0")
    page.wait_for_selector("text=Tried, fits")
    watched.assert_clean()
