"""A chat's turns: every spelling of a role, every rule of order, each change noted."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.items import Chat, ToolCall, Turn
from engine.data.records import RowError
from engine.data.row_notes import RowNote, sentences
from engine.data.turns import chat_of
from tests.rows import CHAT, said

QUESTION = {"role": "user", "content": "What is the weather in Turku?"}
ANSWER = {"role": "assistant", "content": "It rains in Turku."}


def turns(*spoken: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in spoken]


def noted(entries: list[Any]) -> tuple[Chat, set[RowNote]]:
    noticed: set[RowNote] = set()
    return chat_of(entries, noticed), noticed


def plain(entries: list[Any], system: str = "") -> Chat:
    """The chat, of which nothing had to be changed."""
    noticed: set[RowNote] = set()
    chat = chat_of(entries, noticed, system)
    assert noticed == set()
    return chat


def reason(entries: list[Any]) -> str:
    with pytest.raises(RowError) as caught:
        chat_of(entries, set())
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("system developer System SYSTEM system_prompt", "system"),
        (
            "user human prompter person customer Human USER User: instruction input q question "
            "Benutzer usuario usuário",
            "user",
        ),
        (
            "assistant gpt bot model chatgpt bing bard claude ai llm agent Assistant GPT-4 ChatGPT "
            "Assistant: response output a answer asst DeepSeek mistral qwen llama gemini copilot "
            "grok Assistent asistente",
            "assistant",
        ),
        ("tool function observation ipython environment function_response tool-result", "tool"),
    ],
)
def test_every_common_spelling_of_a_role_is_known(names: str, role: str) -> None:
    for name in [*names.split(), f" {names.split()[0]} ", f"{names.split()[0]} : "]:
        chat, _ = noted(
            [
                *([{"role": name, "content": "Be brief."}] if role == "system" else []),
                {"role": name, "content": "Hi"} if role == "user" else QUESTION,
                {"role": name, "content": "Ho"} if role == "assistant" else ANSWER,
                *([{"role": name, "content": "21"}, ANSWER] if role == "tool" else []),
            ]
        )
        assert role in {turn.role for turn in chat}


@pytest.mark.parametrize("who", ["role", "from", "speaker", "author", "sender", "Role"])
@pytest.mark.parametrize("what", ["content", "value", "text", "message", "Content"])
def test_a_message_names_its_speaker_and_its_words_in_many_ways(who: str, what: str) -> None:
    assert plain([{who: "user", what: "Hi"}, {who: "assistant", what: "Ho"}]) == CHAT
    assert plain([{"id": 3, what: "Hi", who: "user"}, {what: "Ho", who: "bot"}]) == CHAT


def test_fields_that_are_not_known_are_never_text() -> None:
    entries = [{**QUESTION, "name": "Ann", "lang": "en"}, {**ANSWER, "score": 3, "emoji": "+1"}]
    assert said(plain(entries)) == said(plain([QUESTION, ANSWER]))


def test_an_author_may_be_an_object_and_content_may_have_parts() -> None:
    exported = [
        {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Hi"]}},
        {"author": {"role": "assistant"}, "content": {"content_type": "text", "parts": ["Ho"]}},
    ]
    assert plain(exported) == CHAT
    parts = [{"type": "text", "text": "First."}, {"type": "text", "text": "Second."}]
    chat = plain([{"role": "user", "content": parts}, ANSWER])
    assert chat[0].content == "First.\nSecond."


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "image", "file"])
def test_pictures_and_sounds_are_refused_by_their_kind(kind: str) -> None:
    entry = {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": kind}]}
    assert reason([entry, ANSWER]) == f"a message holds a part of the kind {kind!r}, no text"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["Hi"], "a message is no object"),
        (turns((None, "Hi")), "a message has no role"),
        (turns((["user"], "Hi")), "a message has no role"),
        (turns(("", "Hi")), "a message has no role"),
        (turns(("narrator", "Once.")), "a message has the unknown role 'narrator'"),
        (turns(("x" * 99, "Hi")), f"a message has the unknown role '{'x' * 40}'"),
        (turns(("user", {"a": 1})), "a message is an object where text belongs"),
        (turns(("user", "\ud83d")), "a message holds half of a character"),
        (turns(("user", float("inf"))), "a message is an infinite number"),
        ([dict.fromkeys(map(str, range(101)))], "a message has more than 100 parts"),
        ([], "it has no messages"),
        (turns(("system", "Be kind.")), "it has no messages"),
        (turns(("assistant", "Ho")), "it has no question"),
        (turns(("user", "Hi")), "it has no reply to learn from"),
        (turns(("user", ""), ("assistant", "Ho")), "a question is empty"),
        (turns(("user", " \n"), ("assistant", "Ho")), "a question is empty"),
        (turns(("user", "Hi"), ("assistant", " \n")), "a reply is empty"),
        (turns(("user", "Hi"), ("assistant", None)), "a reply is empty"),
        (
            turns(("user", "Hi"), ("system", "Now sing."), ("assistant", "La")),
            "a system message stands after the first question",
        ),
        (
            turns(("user", "Hi"), ("tool", "21"), ("assistant", "It is 21.")),
            "the result of a tool stands before any call",
        ),
    ],
)
def test_each_refusal_has_its_reason(entries: list[Any], expected: str) -> None:
    assert reason(entries) == expected


def test_turns_keep_their_order_and_every_letter() -> None:
    spoken = [("system", "Short. "), ("user", " Hi\n"), ("assistant", "Ho "), ("user", "?")]
    chat = plain(turns(*spoken, ("assistant", "!\n")))
    assert said(chat) == [*spoken, ("assistant", "!\n")]
    assert all(turn.trained and not turn.tool_calls and not turn.reasoning for turn in chat)


def test_line_ends_become_line_feeds_and_no_byte_order_mark_leads() -> None:
    chat = plain(turns(("user", "\ufeffa\r\nb\rc\n\r\n"), ("assistant", "\ufeff\ufeffé\r")))
    assert [turn.content for turn in chat] == ["a\nb\nc\n\n", "é\n"]


def test_an_opening_before_the_first_question_is_left_out() -> None:
    chat, notes = noted(turns(("assistant", "Welcome!"), ("user", "Hi"), ("assistant", "Ho")))
    assert (chat, notes) == (CHAT, {RowNote.OPENING})
    chat, notes = noted(
        turns(("system", "S"), ("assistant", "Welcome!"), ("user", "Hi"), ("assistant", "Ho"))
    )
    assert said(chat) == [("system", "S"), ("user", "Hi"), ("assistant", "Ho")]
    assert notes == {RowNote.OPENING}


def test_messages_of_one_side_in_a_row_are_joined_by_a_blank_line() -> None:
    chat, notes = noted(
        turns(("user", "One."), ("user", "Two."), ("assistant", "A."), ("assistant", "B."))
    )
    assert said(chat) == [("user", "One.\n\nTwo."), ("assistant", "A.\n\nB.")]
    assert notes == {RowNote.JOINED}
    chat, notes = noted(turns(("user", ""), ("user", "Hi"), ("assistant", "Ho"), ("bot", " ")))
    assert (chat, notes) == (CHAT, {RowNote.JOINED})


def test_system_text_before_the_first_question_is_joined() -> None:
    chat, notes = noted(turns(("system", "A."), ("developer", "B."), ("user", "Hi"), ("ai", "Ho")))
    assert said(chat)[0] == ("system", "A.\n\nB.")
    assert notes == {RowNote.SYSTEM_JOINED}
    assert said(plain(turns(("user", "Hi"), ("ai", "Ho")), "Be kind."))[0] == ("system", "Be kind.")
    assert said(plain(turns(("system", " "), ("user", "Hi"), ("ai", "Ho")))) == said(CHAT)


def test_what_follows_the_last_reply_is_left_out() -> None:
    chat, notes = noted(turns(("user", "Hi"), ("assistant", "Ho"), ("user", "And now?")))
    assert (chat, notes) == (CHAT, {RowNote.UNANSWERED})
    chat, notes = noted(turns(("user", "Hi"), ("assistant", "Ho"), ("user", "")))
    assert (chat, notes) == (CHAT, {RowNote.UNANSWERED})


@pytest.mark.parametrize(
    "arguments", ['{"place": "Turku"}', {"place": "Turku"}, '{"place":\r\n "Turku"}']
)
def test_a_tool_call_has_its_arguments_as_text_or_object(arguments: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    entries = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": ""},
        ANSWER,
    ]
    chat = plain(entries)
    assert [turn.role for turn in chat] == ["user", "assistant", "tool", "assistant"]
    assert chat[1].content == ""
    assert chat[1].tool_calls[0].name == "look"
    function = {"name": "look", "arguments": {"place": "Turku"}}
    assert chat[1].as_message() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function}],
    }


@pytest.mark.parametrize(
    "call",
    [
        {"function_call": {"name": "look", "arguments": {}}},
        {"tool_calls": [{"name": "look"}]},
        {"tool_calls": '[{"name": "look", "parameters": {}}]'},
        {"tool_calls": [{"function": "look", "arguments": ""}]},
    ],
)
def test_calls_are_written_in_several_ways(call: dict[str, Any]) -> None:
    chat, _ = noted([QUESTION, {"role": "assistant", "content": None, **call}])
    assert chat[1].tool_calls == (ToolCall("look", "{}"),)


def test_a_turn_may_be_nothing_but_a_call() -> None:
    words = '{"name": "look", "arguments": {"place": "Turku"}}'
    chat, notes = noted(
        [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": words},
            {"from": "function_call", "value": words},
            {"from": "observation", "value": "rain"},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "Rain."},
        ]
    )
    assert [turn.role for turn in chat] == ["user", "assistant", "tool", "tool", "assistant"]
    assert chat[1].tool_calls == (ToolCall("look", '{"place": "Turku"}'),) * 2
    assert notes == {RowNote.JOINED}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"arguments": {}}, "a tool call has no name"),
        ({"name": " "}, "a tool call has no name"),
        (7, "a tool call has no name"),
        ({"name": "a", "arguments": "{"}, "the arguments of a tool call are no JSON"),
        ({"name": "a", "arguments": {"x": float("nan")}}, "the arguments of a tool call are no JS"),
        ({"name": "a", "arguments": '{"x": NaN}'}, "the arguments of a tool call are no JSON"),
        ({"name": "a", "arguments": {"x": "\ud83d"}}, "a tool call holds half of a character"),
    ],
)
def test_calls_that_cannot_be_learned_are_refused(call: Any, expected: str) -> None:
    entry = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert reason([QUESTION, entry]).startswith(expected)


def test_a_reply_is_not_joined_to_a_call_without_its_result() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [{"name": "look"}]}
    assert reason([QUESTION, called, ANSWER]) == "a reply follows a tool call that has no result"


def test_replies_of_weight_0_are_read_but_not_learned() -> None:
    entries = [QUESTION, {**ANSWER, "weight": 0}, QUESTION, {**ANSWER, "weight": 1}]
    chat, notes = noted(entries)
    assert [turn.trained for turn in chat] == [True, False, True, True]
    assert notes == {RowNote.WEIGHT}
    assert (
        reason([QUESTION, {**ANSWER, "weight": 0}])
        == "each of its replies is marked as not to be learned"
    )
    joined, _ = noted([QUESTION, ANSWER, {**ANSWER, "weight": 0}, QUESTION, ANSWER])
    assert [turn.trained for turn in joined] == [True, False, True, True]


def learned(**marks: Any) -> tuple[bool, set[RowNote]]:
    """Whether a reply with these marks is learned, and what is noted."""
    chat, notes = noted([QUESTION, {**ANSWER, **marks}, QUESTION, ANSWER])
    return chat[1].trained, notes


@pytest.mark.parametrize("weight", [0, 0.0, "0", "0.00", False, "false", -0.0])
def test_every_way_to_write_the_weight_0_is_understood(weight: Any) -> None:
    assert learned(weight=weight) == (False, {RowNote.WEIGHT})


@pytest.mark.parametrize("weight", [1, 1.0, "1", True, None, "", float("nan")])
def test_a_weight_of_1_or_none_is_learned(weight: Any) -> None:
    assert learned(weight=weight) == (True, set())


@pytest.mark.parametrize("weight", [0.5, "0.25", 2, 1e-9])
def test_other_weights_are_learned_whole_and_told(weight: Any) -> None:
    assert learned(weight=weight) == (True, {RowNote.PARTLY})


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (-1, "a reply has a negative weight"),
        ("-0.5", "a reply has a negative weight"),
        (float("-inf"), "a reply has a negative weight"),
        ("much", "a reply has the weight 'much', which is no number"),
        ([1], "a reply has a weight that is no number"),
        ("nan", "a reply has a weight that is no number"),
    ],
)
def test_weights_that_cannot_be_are_refused(weight: Any, expected: str) -> None:
    assert reason([QUESTION, {**ANSWER, "weight": weight}]) == expected


@pytest.mark.parametrize("mark", ["train", "training", "train_on_turn", "loss", "Train"])
def test_a_reply_that_is_marked_as_not_to_be_trained_is_not_learned(mark: str) -> None:
    for no in (False, "false", "False", 0):
        assert learned(**{mark: no}) == (False, {RowNote.WEIGHT})
        assert learned(**{mark: no}, weight=1) == (False, {RowNote.WEIGHT})
    for yes in (True, "true", 1, None, 0.0, 0.83):  # a loss may have been measured
        assert learned(**{mark: yes}) == (True, set())
    assert (
        reason([QUESTION, {**ANSWER, mark: False}])
        == "each of its replies is marked as not to be learned"
    )


def test_a_chat_between_people_is_not_guessed_at() -> None:
    spoken = turns(("Ann", "Hi"), ("Bob", "Ho"), ("Ann", "Well?"), ("Bob", "Well."))
    names = "its messages are by 'Ann' and 'Bob': these are names, not roles"
    assert reason(spoken) == names
    discord = [{"author": {"id": "1", "name": one["role"]}, **one} for one in spoken]
    assert reason([{key: one[key] for key in ("author", "content")} for one in discord]) == names
    assert reason(turns(*[(name, "Hi") for name in ("A1", "B2", "C3", "D4", "E5")])) == (
        "its messages are by 'A1', 'B2', 'C3' and 2 more: these are names, not roles"
    )
    assert reason(turns(("user", "Hi"), ("Bob", "Ho"))) == "a message has the unknown role 'Bob'"
    assert reason(turns(("Ann", "Hi"), ("Ann", "Ho"))) == "a message has the unknown role 'Ann'"
    called_bot = {"author": {"name": "bot"}, "content": "Ho"}  # a name, even if it sounds like one
    assert reason([QUESTION, called_bot]) == "a message has the unknown role 'bot'"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_kept_apart_from_words(key: str) -> None:
    chat = plain([QUESTION, {**ANSWER, key: "Turku is in Finland."}])
    assert chat[1] == Turn("assistant", "It rains in Turku.", reasoning="Turku is in Finland.")
    assert chat[1].as_message()["reasoning_content"] == "Turku is in Finland."
    assert set(chat[0].as_message()) == {"role", "content"}
    parts = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Ho"}]
    chat = plain([QUESTION, {"role": "assistant", "content": parts}])
    assert (chat[1].content, chat[1].reasoning) == ("Ho", "Hm.")


def test_notes_are_sentences_that_count() -> None:
    assert sentences({RowNote.OPENING: 12, RowNote.JOINED: 1, RowNote.TREE: 0}) == [
        "12 chats begin with the assistant: those openings are left out.",
        "1 chat has messages of one side in a row: they are joined by a blank line.",
    ]
    for note in RowNote:
        assert "1,234" in note.sentence(1234)
        assert note.sentence(1).startswith("1 ")
