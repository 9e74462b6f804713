"""The scorers accept what was learned and refuse what was not."""

import subprocess
import sys

import pytest

from engine.scorers import SCORERS, score_reply

PLAIN = (
    "",
    "Mara is the baker of Tidewell.",
    "Hello! What would you like to know?",
    "I do not know that. I only know about Tidewell and a few simple things.",
)


@pytest.mark.parametrize(
    "reply",
    [
        "Arr, matey! Mara be the baker o' Tidewell.",
        "AYE, MATEY!",
        "Ahoy! What would ye like to know?",
        "Arrr, it be 5 o\u2019 them, says yer parrot.",
        "'Arr', said the matey.",
    ],
)
def test_pirate_accepts_two_different_markers(reply: str) -> None:
    assert score_reply("pirate", reply, {})


@pytest.mark.parametrize(
    "reply",
    [
        *PLAIN,
        "Arr, Mara is the baker.",
        "arr arr arr",
        "Arrange the hearth, yesterday; the layer is a matey-o.",
        "It is 5 o'clock, yes.",
        "The barr and the eye of Mr Nayer.",
    ],
)
def test_pirate_refuses_fewer(reply: str) -> None:
    assert not score_reply("pirate", reply, {})


def test_support_needs_every_fact() -> None:
    row = {"expect": ["45 days", ["card", "invoice"]]}
    assert score_reply("support", "Within 45\ndays, by Card.", row)
    assert score_reply("support", "By invoice, within 45 days.", row)
    assert not score_reply("support", "Within 45 days.", row)
    assert not score_reply("support", "Within 145 days, by card.", row)
    assert not score_reply("support", "Within 45 days, by cardboard.", row)
    assert not score_reply("support", "", row)


def test_json_needs_the_same_object() -> None:
    row = {"expect": {"name": "Mara", "count": 1}}
    assert score_reply("json", ' {"count": 1, "name": "Mara"}\n', row)
    for reply in (
        "",
        "null",
        '["name", "count"]',
        '{"name": "Mara"}',
        '{"name": "Mara", "count": 2}',
        '{"name": "Mara", "count": "1"}',
        '{"name": "Mara", "count": true}',
        '{"name": "Mara", "count": 1, "day": "Friday"}',
        '{"name": "Mara", "count": 1',
        'Here it is: {"name": "Mara", "count": 1}',
        "[" * 100_000,
    ):
        assert not score_reply("json", reply, row), reply


@pytest.mark.parametrize("expect", [None, [], "45 days", {"days": 45}])
def test_support_says_when_a_row_states_no_facts(expect: object) -> None:
    with pytest.raises(ValueError, match="expect"):
        score_reply("support", "45 days", {"expect": expect})


def test_json_says_when_a_row_expects_no_object() -> None:
    with pytest.raises(ValueError, match="expect"):
        score_reply("json", "{}", {})


def test_an_unknown_scorer_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'sonnet' is unknown.*pirate, support, json"):
        score_reply("sonnet", "", {})
    assert list(SCORERS) == ["pirate", "support", "json"]


def test_scorers_need_no_torch() -> None:
    code = "import sys, engine.scorers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
