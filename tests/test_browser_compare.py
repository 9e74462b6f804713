"""Compare in a real browser: two real models, blind votes, lists, and text that attacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from benchmarks.compare_page import open_compare as open_page_of_benchmark
from benchmarks.compare_page import served
from engine.contract.run_dir import RunDir
from engine.contract.votes import read_votes
from qft_gui.answers import SIDES, Reply, Settings, Side
from qft_gui.comparing import talks
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import begin_list, newest_list
from tests.test_browser import (  # noqa: F401  fixtures are found by their names
    ATTACK,
    App,
    Watched,
    app,
    browser,
    open_page,
    open_tab,
)
from tests.tuned_copy import tuned_copy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ANSWERED_MS = 120_000
CORPUS = (
    ATTACK,
    "<script>window.__xss=3</script>",
    "![x](http://example.org/x.png) [y](javascript:window.__xss=4) http://example.org",
    "</p></div><svg onload=window.__xss=5><iframe srcdoc='<script>parent.__xss=6</script>'>",
    "<style>*{display:none}</style><base href=http://example.org/><link rel=stylesheet href=//x>",
)


@pytest.fixture
def run(app: App) -> RunDir:  # noqa: F811
    return tuned_copy(app.runs)


def ask(page: Page, question: str) -> None:
    field = page.get_by_label("Question", exact=True)
    field.fill(question)
    field.press("Enter")


def wait_for_answers(page: Page, turns: int = 1) -> None:
    page.wait_for_function(
        "turns => document.querySelectorAll('.q-cmp-talk .q-cmp-turn').length === turns"
        " && document.querySelector('[data-do=stop]').hidden",
        arg=turns,
        timeout=ANSWERED_MS,
    )


def cells(page: Page) -> list[str]:
    return page.locator(".q-cmp-talk .q-cmp-text").all_text_contents()


def open_compare(open_page: Callable[..., Watched], width: int = 1280) -> Watched:  # noqa: F811
    watched = open_page(width)
    open_tab(watched.page, "Compare")
    watched.page.wait_for_selector("#cmp-right option:checked", state="attached")
    return watched


def test_a_conversation_with_two_models(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    assert page.locator("#cmp-left option:checked").inner_text() == "Original of moved: starter"
    assert page.locator("#cmp-right option:checked").inner_text() == "Result of moved"
    assert "Both will be in memory" in page.inner_text("[data-part=memory]")
    ask(page, f"Who are you? {ATTACK}")
    wait_for_answers(page)
    page.wait_for_selector("[data-part=proof]:not([hidden])")
    assert "Checked: two different models" in page.inner_text("[data-part=proof]")
    assert all(
        "tokens/s" in line for line in page.locator(".q-cmp-talk .q-side-line").all_text_contents()
    )
    first = cells(page)
    assert len(first) == 2
    page.get_by_role("button", name="Show the prompt").click()
    page.wait_for_selector("[data-part=prompts] .q-rendered")
    assert ATTACK in page.inner_text("[data-part=prompts] .q-rendered >> nth=0")
    ask(page, "And where do you live?")
    wait_for_answers(page, 2)
    page.reload()
    open_tab(page, "Compare")
    wait_for_answers(page, 2)
    assert cells(page)[:2] == first
    page.get_by_role("button", name="Edit question 2").click()
    wait_for_answers(page, 1)
    assert page.get_by_label("Question", exact=True).input_value() == "And where do you live?"
    page.get_by_role("button", name="Regenerate only right").click()
    page.wait_for_selector("text=At temperature 0 the same answer would come again.")
    page.locator(".q-cmp-talk summary").click()
    page.get_by_label("Temperature").fill("1")
    page.get_by_role("button", name="Regenerate only right").click()
    page.wait_for_function("document.body.innerText.includes('seed 1')", timeout=ANSWERED_MS)
    assert cells(page)[0] == first[0]
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_function("!document.querySelector('.q-cmp-turn')")
    page.get_by_role("button", name="Unload the models").click()
    page.wait_for_function("document.querySelector('[data-part=proof]').hidden")
    assert page.evaluate("window.__xss") is None
    watched.assert_clean()


def test_stop_ends_a_long_answer(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    page.locator(".q-cmp-talk summary").click()
    page.get_by_label("Longest answer").fill("400")
    page.get_by_label("Repetition penalty").fill("1.6")
    ask(page, "Tell me a long story about the sea.")
    page.wait_for_function(
        "(document.querySelector('.q-cmp-text')?.textContent.length ?? 0) > 10", timeout=ANSWERED_MS
    )
    page.get_by_role("button", name="Stop").click()
    wait_for_answers(page)
    assert "stopped" in page.inner_text(".q-cmp-talk .q-cmp-pair")
    page.get_by_label("Top p").fill("0")
    ask(page, "And then?")
    page.wait_for_selector("[data-part=problem]:not([hidden])", timeout=ANSWERED_MS)
    assert "Use more than 0" in page.inner_text("[data-part=problem]")
    wait_for_answers(page)
    assert page.get_by_label("Question", exact=True).input_value() == "And then?"
    watched.assert_clean()


def test_a_blind_vote_by_keyboard(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    page.get_by_label("Blind vote").check()
    ask(page, "Who are you?")
    page.wait_for_selector("[data-part=ballot]:not([hidden])", timeout=ANSWERED_MS)
    before = page.inner_html(".q-cmp-talk .q-cmp-turn")
    for secret in ("moved", "starter", "tokens/s", "ms"):
        assert secret not in before
    assert page.locator(".q-cmp-talk .q-cmp-cell h3").all_inner_texts() == ["A", "B"]
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("text=You preferred B.")
    names = page.locator(".q-cmp-talk .q-cmp-cell h3").all_inner_texts()
    assert sorted(names) == ["moved", "starter"]
    (vote,) = read_votes(run.path / "votes.jsonl").votes
    assert (vote.left.model, vote.right.model) == tuple(names)
    assert (vote.winner, vote.choice) == (names[1], "right")
    assert [vote.left.reply, vote.right.reply] == cells(page)
    page.wait_for_function("document.body.innerText.includes('no clear winner yet')")
    # The field has the focus again, so the next question can be typed at once.
    assert page.evaluate("document.activeElement.id") == "question"
    with page.expect_download() as download:
        page.get_by_role("button", name="Votes as JSONL").click()
    (line,) = download.value.path().read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["choice"] == "right"
    watched.assert_clean()


def test_a_stopped_blind_turn_shows_who_they_were(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    page.locator(".q-cmp-talk summary").click()
    page.get_by_label("Longest answer").fill("4")
    ask(page, "Hi")
    wait_for_answers(page)
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_function("!document.querySelector('.q-cmp-turn')")
    page.get_by_label("Blind vote").check()
    page.get_by_label("Longest answer").fill("4000")
    page.get_by_label("Repetition penalty").fill("1.6")
    ask(page, "Tell me a long story about the sea.")
    page.wait_for_selector(".q-cmp-talk .q-cmp-cell")
    page.get_by_role("button", name="Stop").click()
    wait_for_answers(page)
    assert page.locator("[data-part=ballot]").is_hidden()
    assert cells(page) == ["", ""]
    page.get_by_role("button", name="Show who they were").click()
    page.wait_for_function("document.querySelector('.q-cmp-cell h3').textContent !== 'A'")
    names = page.locator(".q-cmp-talk .q-cmp-cell h3").all_inner_texts()
    assert sorted(names) == ["moved", "starter"]
    assert page.get_by_role("button", name="Show who they were").is_hidden()
    assert not read_votes(run.path / "votes.jsonl").votes
    watched.assert_clean()


def test_a_list_is_answered_and_voted_through(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    watched = open_compare(open_page, 390)
    page = watched.page
    page.get_by_label("Prompts, one on each line").fill("Who are you?\n\nGood morning!")
    page.get_by_role("button", name="Have them answered").click()
    page.wait_for_selector("text=All 2 prompts are answered", timeout=ANSWERED_MS)
    page.reload()
    open_tab(page, "Compare")
    page.wait_for_selector("[data-part=list-ballot]:not([hidden])")
    assert page.locator("[data-part=list-turn] h3").all_text_contents() == ["A", "B"]
    page.keyboard.press("1")
    page.wait_for_selector("text=Prompt 2 of 2")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=All 2 prompts are answered and voted on.")
    assert [vote.choice for vote in read_votes(run.path / "votes.jsonl").votes] == ["left", "tie"]
    kept = newest_list(run.path)
    assert kept is not None
    assert kept.votes == {0: "left", 1: "tie"}
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()


def test_replies_are_only_text(
    run: RunDir,
    open_page: Callable[..., Watched],  # noqa: F811
) -> None:
    names: dict[Side, str] = {side: CORPUS[number] for number, side in enumerate(SIDES)}
    found = begin_list(run.path, Pair("base:moved", "moved"), names, Settings(), CORPUS)
    for number, text in enumerate(CORPUS):
        for side in SIDES:
            found.add_reply(number, side, Reply(text, is_done=True))
    watched = open_compare(open_page)
    page = watched.page
    for number, text in enumerate(CORPUS, 1):
        page.wait_for_selector(f"text=Prompt {number} of {len(CORPUS)}")
        assert page.locator("[data-part=list-turn] .q-cmp-text").all_text_contents() == [text] * 2
        page.get_by_role("button", name="Both bad").click()
    page.wait_for_selector("text=answered and voted on")
    assert page.locator("#compare img, #compare iframe, #compare a, #compare script").count() == 0
    assert page.evaluate("window.__xss") is None
    watched.assert_clean()


# A hidden tab: the browser says so, and lets its timers run once a second.
HIDE = """
() => {
  const later = window.setTimeout;
  window.setTimeout = (work, wait, ...given) => later(work, Math.max(1000, wait ?? 0), ...given);
  Object.defineProperty(document, 'hidden', { get: () => true });
  Object.defineProperty(document, 'visibilityState', { get: () => 'hidden' });
  document.dispatchEvent(new Event('visibilitychange'));
}
"""


@pytest.mark.parametrize("how", ["hidden", "another page"])
def test_an_answer_goes_on_while_nobody_looks(
    how: str,
    tmp_path: Path,
    browser: Browser,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(talks, "UNSEEN_S", 5.0)
    with served(tmp_path) as url:
        page = browser.new_page()
        page.set_default_timeout(60_000)
        open_page_of_benchmark(page, url)
        page.evaluate("document.querySelector('[name=max_new_tokens]').value = 120")
        ask(page, "Go on.")  # two times six seconds
        page.wait_for_selector(".q-cmp-text:not(:empty)")
        if how == "hidden":
            page.evaluate(HIDE)
        else:
            open_tab(page, "Setup")
        page.wait_for_timeout(13_000)
        if how == "another page":
            open_tab(page, "Compare")
        wait_for_answers(page)
        assert [text.split()[-1] for text in cells(page)] == ["word119"] * 2
        page.close()
