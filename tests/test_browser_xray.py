"""The X-ray page in a real browser: from a click to three drawn plots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser import App, Watched, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.slow]

PLOT = "document.querySelector('[data-plot={}]')"


def test_an_xray_of_the_starter_is_drawn(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page(390, "dark")
    page = watched.page
    open_tab(page, "X-ray")
    page.get_by_role("button", name="Take the X-ray").click()
    page.wait_for_selector(".q-waits [role=status]")
    errors = PLOT.format("errors")
    page.wait_for_function(f"{errors}?.data?.length === 3 && {errors}.offsetParent")
    spread = PLOT.format("spread")
    assert page.evaluate(f"{spread}.data[0].y") == [
        "embedding",
        *(f"layer {number}" for number in range(4)),
        "normal bell",
    ]
    weights = page.evaluate(f"{errors}.data[2].y")
    page.get_by_label("Gradients", exact=True).click()
    page.wait_for_function(f"{errors}.data[2].y[0] !== {weights[0]}")
    assert "On average" in page.inner_text("[data-reading=errors]")
    page.get_by_text("As a table").last.click()
    page.wait_for_selector("#xray-table td")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()
