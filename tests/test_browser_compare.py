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
from tests.browser import ATTACK, Watched, open_compare, open_tab
from tests.test_gui_golden import golden_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

ANSWERED_MS = 120_000
CORPUS = (
    ATTACK,
    "<script>window.__xss=3</script>",
    "![x](http://example.org/x.png) [y](javascript:window.__xss=4) http://example.org",
    "</p></div><svg onload=window.__xss=5><iframe srcdoc='<script>parent.__xss=6</script>'>",
    "<style>*{display:none}</style><base href=http://example.org/><link rel=stylesheet href=//x>",
)


def ask(page: Page, question: str) -> None:
    field = page.get_by_label("Question", exact=True)
    field.fill(question)
    field.press("Enter")


def open_settings(page: Page, longest: int) -> None:
    page.locator(".q-cmp-talk summary", has_text="Settings").click()
    page.get_by_label("Longest answer").fill(str(longest))


def wait_for_answers(page: Page, turns: int = 1) -> None:
    page.wait_for_function(
        "turns => document.querySelectorAll('.q-cmp-talk .q-cmp-turn').length === turns"
        " && document.querySelector('[data-do=stop]').hidden",
        arg=turns,
        timeout=ANSWERED_MS,
    )


def cells(page: Page) -> list[str]:
    return page.locator(".q-cmp-talk .q-cmp-text").all_text_contents()


def test_a_conversation_with_two_models(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
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
    field = page.get_by_label("Question", exact=True)
    field.fill("And where do you live?")
    page.get_by_role("button", name="Ask", exact=True).click()
    wait_for_answers(page, 2)
    # The button went, and the panel told of the question before.
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.locator("[data-part=prompts]").is_hidden()
    page.reload()
    open_tab(page, "Compare")
    wait_for_answers(page, 2)
    assert cells(page)[:2] == first
    edit_the_first_question(page)
    assert len(cells(page)) == 2
    page.get_by_role("button", name="Regenerate only right").click()
    page.wait_for_selector("text=At temperature 0 the same answer would come again.")
    page.locator(".q-cmp-talk summary", has_text="Settings").click()
    page.get_by_label("Temperature").fill("1")
    page.get_by_role("button", name="Regenerate only right").click()
    page.wait_for_function("document.body.innerText.includes('seed 1')", timeout=ANSWERED_MS)
    shown = cells(page)
    choose_models(page, tuned_run.path.parent)
    page.get_by_role("button", name="Bring the conversation back").click()
    page.wait_for_selector(".q-cmp-turn")
    assert cells(page) == shown
    assert page.locator("#cmp-right option:checked").inner_text() == "Result of moved"
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_function("!document.querySelector('.q-cmp-turn')")
    page.get_by_role("button", name="Unload the models").click()
    page.wait_for_function("document.querySelector('[data-part=proof]').hidden")
    assert page.evaluate("window.__xss") is None
    watched.assert_clean()


def edit_the_first_question(page: Page) -> None:
    field = page.get_by_label("Question", exact=True)
    field.fill("Half a thought")
    page.get_by_role("button", name="Edit question 1").click()
    assert field.input_value().startswith("Who are you?")
    assert "Asking it removes what came after it." in page.inner_text("[data-part=editing]")
    page.get_by_role("button", name="Edit question 2").click()
    assert field.input_value() == "And where do you live?"
    page.locator("[data-part=editing]").get_by_role("button", name="Cancel").click()
    assert field.input_value() == "Half a thought"
    assert len(cells(page)) == 4
    page.get_by_role("button", name="Edit question 1").click()
    ask(page, "Who is there?")
    page.wait_for_function("document.querySelectorAll('.q-cmp-turn').length === 1")
    wait_for_answers(page, 1)
    assert page.locator("[data-part=editing]").is_hidden()
    assert field.input_value() == "Half a thought"


def choose_models(page: Page, runs: Path) -> None:
    """What is typed stays while the list of runs changes, and the conversation is put away."""
    right, typed = page.locator("#cmp-right"), page.get_by_label("Right: folder or hub id")
    right.select_option("other:")
    assert page.inner_text("[data-part=memory]") == ""
    typed.type("moved@")
    golden_run(runs, "newer", kind="full")
    page.wait_for_selector("#cmp-right option[value=newer]", state="attached", timeout=10_000)
    left = page.locator("#cmp-left option:checked").inner_text()
    assert (left, right.input_value()) == ("Original of moved: starter", "other:")
    assert typed.input_value() == "moved@"
    typed.fill("")
    ask(page, "Hi")
    page.wait_for_selector("text=Name the model on the right first")
    typed.fill("moved@7")
    typed.press("Enter")
    page.wait_for_selector("text=moved has no checkpoint of step 7")
    assert page.locator(".q-cmp-turn").count() == 0
    typed.fill("newer")
    typed.press("Enter")
    page.wait_for_function("document.activeElement.id === 'cmp-right'")
    assert (right.input_value(), typed.is_visible()) == ("newer", False)


WATCH_EDITING = """
() => {
  const line = document.querySelector('[data-part=editing]');
  const note = () => { window.wasAsked ||= line.hidden; };
  new MutationObserver(note).observe(line, { attributes: true });
}
"""


def test_stop_ends_a_long_answer(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    open_settings(page, longest=400)
    page.get_by_label("Repetition penalty").fill("1.6")
    ask(page, "Tell me a long story about the sea.")
    page.wait_for_function(
        "(document.querySelector('.q-cmp-text')?.textContent.length ?? 0) > 10", timeout=ANSWERED_MS
    )
    page.get_by_role("button", name="Stop").click()
    wait_for_answers(page)
    assert page.evaluate("document.activeElement.id") == "question"
    assert "stopped" in page.inner_text(".q-cmp-talk .q-cmp-pair")
    page.get_by_label("Top p").fill("0")
    ask(page, "And then?")
    page.wait_for_selector("[data-part=problem]:not([hidden])", timeout=ANSWERED_MS)
    assert "Use more than 0" in page.inner_text("[data-part=problem]")
    wait_for_answers(page)
    field = page.get_by_label("Question", exact=True)
    assert field.input_value() == "And then?"
    # An edited one that is refused is in the field as such, and takes nothing away.
    page.get_by_role("button", name="Edit question 1").click()
    page.evaluate(WATCH_EDITING)
    ask(page, "Tell me less.")
    page.wait_for_function(
        "window.wasAsked && !document.querySelector('[data-part=editing]').hidden"
    )
    assert field.input_value() == "Tell me less."
    assert len(cells(page)) == 2
    page.keyboard.press("Escape")
    assert field.input_value() == "And then?"
    watched.assert_clean()


def test_a_blind_vote_by_keyboard(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
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
    (vote,) = read_votes(tuned_run.path / "votes.jsonl").votes
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
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
) -> None:
    watched = open_compare(open_page)
    page = watched.page
    open_settings(page, longest=4)
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
    assert not read_votes(tuned_run.path / "votes.jsonl").votes
    watched.assert_clean()


def ask_blind_twice(page: Page) -> None:
    page.get_by_label("Blind vote").check()
    for number in (1, 2):
        ask(page, "Hi")
        wait_for_answers(page, number)
    turn = page.locator(".q-cmp-talk .q-cmp-turn").first
    turn.get_by_text("You did not vote.").wait_for()
    assert "moved" in turn.inner_text()


def test_a_list_is_answered_and_voted_through(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
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
    # What is pressed at the list is a vote on the list, whatever else waits for one.
    ask_blind_twice(page)
    page.locator("[data-part=list-ballot]").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("text=All 2 prompts are answered and voted on.")
    assert page.evaluate("document.activeElement.dataset.part") == "list-state"
    page.keyboard.press("1")
    assert page.locator("[data-part=ballot]").is_visible()
    page.get_by_role("button", name="Show who they were").click()
    page.wait_for_selector("[data-part=ballot]", state="hidden")
    assert [vote.choice for vote in read_votes(tuned_run.path / "votes.jsonl").votes] == [
        "left",
        "tie",
    ]
    kept = newest_list(tuned_run.path)
    assert kept is not None
    assert kept.votes == {0: "left", 1: "tie"}
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    watched.assert_clean()


def test_replies_are_only_text(
    tuned_run: RunDir,
    open_page: Callable[..., Watched],
) -> None:
    names: dict[Side, str] = {side: CORPUS[number] for number, side in enumerate(SIDES)}
    found = begin_list(tuned_run.path, Pair("base:moved", "moved"), names, Settings(), CORPUS)
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
    browser: Browser,
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
