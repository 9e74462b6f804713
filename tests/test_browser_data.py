"""Datasets in a real browser: uploaded, mapped by hand, looked into, and refused with a way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page

from tests.browser import ATTACK, App, Watched

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

CHECKED_S = 100_000  # milliseconds: the engine starts in seconds, longer beside other tests


def upload(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files(file)


def drop(page: Page, name: str, text: str) -> None:
    """Drop a file onto the page, away from every field."""
    page.evaluate(
        """([name, text]) => {
            const files = new DataTransfer();
            files.items.add(new File([text], name));
            const how = { dataTransfer: files, bubbles: true, cancelable: true };
            document.querySelector('h1').dispatchEvent(new DragEvent('drop', how));
        }""",
        [name, text],
    )


def wait_for_facts(page: Page, words: str) -> None:
    page.wait_for_function(
        "words => [...document.querySelectorAll('.q-card')]"
        ".some(card => card.innerText.includes(words))"
        " && !document.querySelector('.q-data-state .live')",
        arg=words,
        timeout=CHECKED_S,
    )


def start_button(page: Page) -> Locator:
    return page.get_by_role("button", name="Start training")


def test_columns_of_any_name_are_mapped_by_hand(
    app: App,
    open_page: Callable[..., Watched],
    tmp_path: Path,
) -> None:
    rows = "".join(f'"Wer ist Nummer {i}?","{ATTACK} {i}",{i}\n' for i in range(1, 41))
    file = tmp_path / "meine Daten.csv"
    file.write_text(f"Frage,Was rauskommt,Nr\n{rows}", encoding="utf-8")
    watched = open_page()
    page = watched.page
    upload(page, file)
    page.wait_for_selector("text=in no format known here", timeout=CHECKED_S)
    assert start_button(page).is_disabled()
    assert (app.runs.parent / "datasets" / "meine-Daten.csv").read_text() == file.read_text()
    page.get_by_label("Prompt", exact=True).select_option("Frage")
    page.get_by_label("Reply", exact=True).select_option("Was rauskommt")
    wait_for_facts(page, "Rows used\n40")
    page.wait_for_function("!document.body.innerText.includes('in no format known here')")
    assert start_button(page).is_enabled()
    assert page.get_by_label("Prompt", exact=True).input_value() == "Frage"
    assert page.get_by_label("Prompt", exact=True).is_visible()  # what one works in stays open
    assert page.get_by_label("Encoding", exact=True).is_visible()
    page.get_by_role("button", name="Show command").click()
    command = page.inner_text(".q-code >> nth=0")
    assert "prompt: Frage" in command
    assert "reply: Was rauskommt" in command
    assert "format" not in command
    turn_through_examples(page)
    assert page.evaluate("window.__xss") is None
    watched.assert_clean()


def turn_through_examples(page: Page) -> None:
    page.locator(".q-seen > summary").click()
    page.wait_for_selector("text=Line 2,")
    assert ATTACK in page.inner_text(".q-rendered mark")
    assert "Wer ist Nummer 1?" in page.inner_text(".q-rendered")
    page.get_by_role("button", name="Next example").click()
    page.wait_for_selector("text=Line 3,")
    number = page.get_by_label("Example", exact=True)
    number.fill("40")
    number.press("Enter")
    page.wait_for_selector("text=Line 41,", timeout=CHECKED_S)
    assert page.get_by_role("button", name="Next example").is_disabled()
    styles = page.evaluate(
        "(mark => [getComputedStyle(mark).textDecorationLine, getComputedStyle(mark).color !=="
        " getComputedStyle(mark.parentElement).color])(document.querySelector('.q-rendered mark'))"
    )
    assert styles == ["underline", True]
    assert page.locator(".q-hist[role=img]").get_attribute("aria-label")


def test_nothing_to_learn_keeps_start_off_until_it_is_mended(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    row = {"instruction": "again and again " * 60, "output": "Yes."}
    watched = open_page()
    page = watched.page
    page.get_by_role("button", name="More").click()
    page.get_by_label("Sequence length").fill("64")
    drop(page, "long.jsonl", "".join(json.dumps(row | {"id": i}) + "\n" for i in range(30)))
    page.wait_for_selector("text=no reply begins within", timeout=CHECKED_S)
    assert start_button(page).is_disabled()
    mend = page.get_by_role("button", name="Set Sequence length to 256")
    mend.click()
    wait_for_facts(page, "Rows used\n30")
    assert page.get_by_label("Sequence length").input_value() == "256"
    assert start_button(page).is_enabled()
    watched.assert_clean()


def test_preference_pairs_wait_for_consent(
    app: App,
    open_page: Callable[..., Watched],
    tmp_path: Path,
) -> None:
    file = tmp_path / "pairs.jsonl"
    row = {"prompt": "Tea?", "chosen": "Yes, please.", "rejected": "Never."}
    lines = [json.dumps(row | {"prompt": f"Tea {i}?"}) for i in range(30)]
    file.write_text("\n".join(lines), encoding="utf-8")
    watched = open_page(390, "dark")
    page = watched.page
    upload(page, file)
    consent = page.get_by_role("button", name="Learn the chosen replies only")
    consent.wait_for(timeout=CHECKED_S)
    assert start_button(page).is_disabled()
    consent.click()
    wait_for_facts(page, "Rows used\n30")
    assert start_button(page).is_enabled()
    page.locator(".q-seen > summary").click()
    page.wait_for_selector(".q-rendered")
    assert "Yes, please." in page.inner_text(".q-rendered")
    assert "Never." not in page.inner_text(".q-rendered")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()


def test_a_file_that_is_too_large_is_not_even_sent(
    app: App,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_page()
    page = watched.page
    page.evaluate(
        """() => {
            const file = new File(['x'], 'giant.jsonl');
            Object.defineProperty(file, 'size', { value: 257 * 2 ** 20 });
            const drop = new DragEvent('drop', { bubbles: true, cancelable: true });
            const dataTransfer = { files: [file], types: ['Files'] };
            Object.defineProperty(drop, 'dataTransfer', { value: dataTransfer });
            document.querySelector('h1').dispatchEvent(drop);
        }"""
    )
    page.wait_for_selector("text=giant.jsonl is larger than 256 MB")
    assert not (app.runs.parent / "datasets").exists()
    watched.assert_clean()


def test_every_field_of_the_card_is_reachable_and_named(
    app: App,
    open_page: Callable[..., Watched],
    tmp_path: Path,
) -> None:
    file = tmp_path / "some.jsonl"
    rows = [json.dumps({"question": f"What is {i}?", "answer": "A number."}) for i in range(30)]
    file.write_text("\n".join([*rows, "{broken"]), encoding="utf-8")
    watched = open_page(390)
    page = watched.page
    upload(page, file)
    wait_for_facts(page, "Left out\n1")
    for name in ("refused", "mapping", "seen"):
        summary = page.locator(f"details[data-keep={name}] > summary")
        summary.focus()
        summary.press("Enter")
    page.wait_for_selector(".q-rendered")
    page.wait_for_timeout(1_500)  # answers that come in do not close what was opened
    assert page.locator(".q-refused").is_visible()
    assert "Line" in page.inner_text(".q-refused th >> nth=0")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('.q-map select, .q-turn input')]"
        ".filter(e => !e.labels?.length).length"
    )
    assert unnamed == 0
    small = page.evaluate(
        "[...document.querySelectorAll('.q-card button, .q-card select, .q-card summary')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.5)"
        ".map(e => e.innerText)"
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()
