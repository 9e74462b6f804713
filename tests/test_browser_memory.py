"""The memory of a run in a real browser: the mark of the peak, and the table that stays open."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.contract.events import EventWriter
from tests.browser import App, Watched, open_tab
from tests.test_gui_golden import golden_run, write_step
from tests.test_gui_memory import FORECAST, MEASURED, MIB

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120), pytest.mark.slow]

MEMORY = "document.querySelector('[data-plot=memory]')"
STEP = "document.querySelector('.q-run-facts dd')"
PEAK = f"{MEMORY}?.data?.find((trace) => trace.name === 'peak')"


def test_the_peak_and_the_table_come_with_the_measurement(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    run = golden_run(app.runs, steps=60, done=1, outcome=None)
    watched = open_page(390, "dark", shows=".q-head, .q-methods")
    page = watched.page
    open_tab(page, "Run")
    page.wait_for_function(f"{PEAK}?.y.length === 0")
    assert page.locator("[data-legend=peak]").is_hidden()
    with EventWriter(run.events_path, 1) as log:
        log.emit("memory", **FORECAST)
        log.emit("memory", **MEASURED)
        page.wait_for_function(f"{PEAK}.y[0] === {680 * MIB / 2**30}")
        assert page.inner_text("[data-last=peak]") == "0.66"
        assert page.inner_text("[data-last=band]") == "0.59 to 0.70"
        assert page.get_by_role("heading", name="Forecast against measured").is_visible()
        for step in (2, 3):
            write_step(log, step, 60, 6.0)
            page.wait_for_function(f"{STEP}.textContent.trim().startsWith('{step}')")
        table = page.locator("table", has=page.get_by_text("Whole process"))
        assert table.locator("tbody tr").count() == 8
        assert table.is_visible(), "it stays open while the run goes on"
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()
