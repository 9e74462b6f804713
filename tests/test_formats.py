"""What a row is taken for: by the names and the shapes of its columns, each row by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data.formats import NoFormat, RowReader
from engine.data.items import Item, Passage
from engine.data.preference import PreferenceRow
from engine.data.records import RowError
from engine.data.row_notes import RowNote
from tests.rows import CHAT, GOOD, INSTRUCTION, SHAREGPT, messages, said

DIALOGUE = "\n\nHuman: Name a fruit.\n\nAssistant: A pear.\n\nHuman: Another.\n\nAssistant: "
FRUITS = [("user", "Name a fruit."), ("assistant", "A pear."), ("user", "Another.")]


def taken(row: Any, format: str = "auto", **columns: str) -> tuple[Item, str]:
    """The item of a row, and what the row was taken for."""
    reader = RowReader(format, columns)  # pyright: ignore[reportArgumentType]
    item = reader.read(row)
    return item, next(iter(reader.formats))


def reason(row: Any, format: str = "auto", **columns: str) -> str:
    with pytest.raises(RowError) as caught:
        taken(row, format, **columns)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (GOOD, "messages"),
        (SHAREGPT, "messages"),
        (GOOD["messages"], "messages"),
        ({"id": 7, "conversation": GOOD["messages"], "more": [1]}, "messages"),
        ({"dialogue": SHAREGPT["conversations"]}, "messages"),
        ({"turns": GOOD["messages"]}, "messages"),
        ({"Chat": GOOD["messages"], "instruction": "no"}, "messages"),
        ({"messages": json.dumps(GOOD["messages"])}, "messages"),
        ({"what_they_said": GOOD["messages"], "topic": "hello"}, "messages"),
        ({"conversation": [{"human": "Hi", "assistant": "Ho"}]}, "messages"),
        ({"conversation": [["Hi", "Ho"]], "system": ""}, "messages"),
        ({"turns": [{"score": 1}], "question": "Hi", "answer": "Ho"}, "qa"),
        ({"messages": None, **INSTRUCTION}, "instruction"),
        ({"messages": [], **INSTRUCTION}, "instruction"),
        (INSTRUCTION, "instruction"),
        ({"Instruction": "Hi", "OUTPUT": "Ho"}, "instruction"),
        ({"instruction": "Hi", "response": "Ho"}, "instruction"),
        ({"input": "Hi", "output": "Ho"}, "instruction"),
        ({"input": "Hi", "context": "", "output": "Ho"}, "instruction"),
        ({"user": "Hi", "assistant": "Ho"}, "instruction"),
        ({"human": "Hi", "bot": "Ho"}, "instruction"),
        ({"request": "Hi", "model_output": "Ho"}, "instruction"),
        ({"user message": "Hi", "AI-response": "Ho"}, "instruction"),
        ({"prompt": "Hi", "completion": " Ho"}, "completion"),
        ({"prompt": "Hi", "response": "Ho"}, "completion"),
        ({"question": "Hi", "answer": "Ho"}, "qa"),
        ({"Query": "Hi", "reply": "Ho"}, "qa"),
        ({"problem": "Hi", "solution": "Ho", "answer": "7"}, "qa"),
        ({"answer": "Ho", "id": 3, "question": "Hi"}, "qa"),
        ({"Frage": "Hi", "ANTWORT": "Ho", "Kategorie": "x"}, "qa"),
        ({"Pregunta": "Hi", "Respuesta": "Ho"}, "qa"),
        ({"Question": "Hi", "R\u00e9ponse": "Ho"}, "qa"),
        ({"question": "Hi", "Re\u0301ponse": "Ho"}, "qa"),
        ({"question": "Hi", "reponse": "Ho"}, "qa"),
        ({"domanda": "Hi", "risposta": "Ho"}, "qa"),
        ({"pergunta": "Hi", "resposta": "Ho"}, "qa"),
        ({"\u95ee\u9898": "Hi", "\u56de\u7b54": "Ho"}, "qa"),
        ({"\u8cea\u554f": "Hi", "\u56de\u7b54": "Ho"}, "qa"),
        ({"Prompt": "Hi", "Antwort": "Ho"}, "completion"),
        (
            [{"role": "instruction", "content": "Hi"}, {"role": "response", "content": "Ho"}],
            "messages",
        ),
    ],
)
def test_a_chat_is_found_under_the_names_that_people_use(row: Any, format: str) -> None:
    assert taken(row) == (CHAT, format)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Once upon a time."},
        {"TEXT": "Once upon a time."},
        {"content": "Once upon a time.", "path": "tale.md"},
        {"text": "Once upon a time.", "url": "x", "Title": "y", "token_count": 9, "dump": "z"},
        {"text": "Once upon a time.", "language_score": 0.9, "doc_id": "a", "added": None},
        {"text": "Once upon a time.", "whatever": 7, "other": ["a"], "third": " "},
    ],
)
def test_a_text_alone_is_a_passage(row: Any) -> None:
    assert taken(row) == (Passage("Once upon a time.", is_whole=True), "text")


def test_a_stretch_of_plain_text_does_not_end_where_it_was_cut() -> None:
    assert taken("Once upon a time.") == (Passage("Once upon a time.", is_whole=False), "text")


def test_a_text_of_its_own_ends_where_it_ends() -> None:
    item = RowReader(is_running_text=False).read("Once upon a time.")
    assert item == Passage("Once upon a time.", is_whole=True)


def test_a_text_beside_other_words_is_no_passage_unless_it_is_said_so() -> None:
    row = {"text": "How do I sleep better?", "mood": "calm"}
    assert reason(row) == "it has a text beside other words, but no reply that is known here"
    assert taken(row, "text") == (Passage("How do I sleep better?", is_whole=True), "text")
    assert taken(row, text="text") == (Passage("How do I sleep better?", is_whole=True), "text")
    assert taken(row, text="mood") == (Passage("calm", is_whole=True), "text")
    assert taken({"story": "Once.", "n": 3}, "text") == (Passage("Once.", is_whole=True), "text")
    lacking = "it has no column that is known to hold its text"
    assert reason({"story": "Once.", "end": "Never."}, "text") == lacking
    assert reason({"text": " \n"}) == "its text is empty"
    assert reason(" \n") == "it is empty"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "no question and no reply are found in it"),
        ({"id": 1, "turns": ["Who are you?", "And you?"]}, "no question and no reply are found"),
        ({"question": "Hi", "topic": "x"}, "it has a question, but no reply that is known here"),
        ({"answer": "Ho", "topic": "x"}, "it has a reply, but no question that is known here"),
    ],
)
def test_rows_without_question_or_reply_say_which_is_lacking(row: Any, expected: str) -> None:
    assert reason(row).startswith(expected)
    with pytest.raises(NoFormat):
        taken(row)


@pytest.mark.parametrize("row", [None, 7, True, [], [7], [["Hi", "Ho"]], [{"a": 1}]])
def test_what_is_no_object_is_refused(row: Any) -> None:
    assert reason(row) == "it is no JSON object"


def test_refusals_of_columns_name_the_column() -> None:
    for row, expected in (
        ({**INSTRUCTION, "instruction": ["Hi"]}, "instruction is a list where text belongs"),
        ({**INSTRUCTION, "output": {"a": 1}}, "output is an object where text belongs"),
        ({**INSTRUCTION, "output": "\ud83d"}, "output holds half of a character"),
        ({**INSTRUCTION, "input": "\udc00"}, "input holds half of a character"),
        ({**INSTRUCTION, "system": "\udc00"}, "system holds half of a character"),
        ({**INSTRUCTION, "output": float("-inf")}, "output is an infinite number"),
        ({**INSTRUCTION, "output": None}, "a reply is empty"),
        ({**INSTRUCTION, "output": " \n"}, "a reply is empty"),
        ({**INSTRUCTION, "output": float("nan")}, "a reply is empty"),
        ({**INSTRUCTION, "instruction": None}, "a question is empty"),
        ({**INSTRUCTION, "history": "earlier"}, "history is no list of earlier turns"),
        ({str(n): "a" for n in range(1001)}, "it has more than 1,000 columns"),
        ({"messages": []}, "it has no messages"),
        ({"messages": [{"content": "Hi"}]}, "a message has no role"),
        ({"messages": [{"content": "Hi"}, *GOOD["messages"]]}, "a message has no role"),
        ({"messages": "Hi"}, "no question and no reply are found in it"),
    ):
        assert reason(row) == expected


def test_an_instruction_takes_its_input_and_system_along() -> None:
    row = {"instruction": " Add ", "input": " 1 2\n", "output": "3 ", "system": "Count."}
    item, _ = taken(row)
    assert said(item) == [("system", "Count."), ("user", "Add\n\n1 2"), ("assistant", "3 ")]
    for empty in (None, "", " \n", float("nan")):
        assert taken({**INSTRUCTION, "input": empty, "system": empty})[0] == CHAT
    assert taken({"instruction": "", "input": "Hi", "output": "Ho"})[0] == CHAT
    item, _ = taken({"question": "Who?", "context": "Ann is here.", "answer": "Ann."})
    assert said(item)[0] == ("user", "Who?\n\nAnn is here.")


def test_numbers_are_written_out() -> None:
    item, _ = taken({"question": 17, "context": 2.5, "answer": True})
    assert said(item) == [("user", "17\n\n2.5"), ("assistant", "true")]


def test_line_ends_in_columns_become_line_feeds() -> None:
    item, _ = taken({"instruction": "\ufeffa\r\nb", "input": "c\rd", "output": "\ufeffe\r\n\r\nf"})
    assert said(item) == [("user", "a\nb\n\nc\nd"), ("assistant", "e\n\nf")]


def test_braces_and_brackets_in_a_question_stay_text() -> None:
    for words in ('{"a": 1}', "[1, 2]", "[]", "{name}", '[{"a": 1}]', "{% raw %}{{name}}"):
        assert said(taken({"prompt": words, "response": words})[0]) == [
            ("user", words),
            ("assistant", words),
        ]


def test_earlier_turns_come_before_the_question() -> None:
    expected = [("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("assistant", "2.")]
    pairs = [["One?", "1."]]
    for history in (
        pairs,
        json.dumps(pairs),
        messages(("user", "One?"), ("gpt", "1."))["messages"],
    ):
        item, _ = taken({"query": "Two?", "response": "2.", "history": history})
        assert said(item) == expected
    for nothing in ([], None, "", "[]"):
        assert taken({"query": "Hi", "response": "Ho", "history": nothing})[0] == CHAT


def test_prompt_and_completion_may_be_messages() -> None:
    asked, replied = [GOOD["messages"][0]], [GOOD["messages"][1]]
    for row in (
        {"prompt": asked, "completion": replied},
        {"prompt": json.dumps(asked), "completion": "Ho"},
        {"prompt": "Hi", "completion": replied},
        {"prompt": asked[0], "completion": replied[0]},
    ):
        assert taken(row) == (CHAT, "completion")


def test_the_space_that_parts_a_completion_from_its_prompt_is_left_out() -> None:
    assert said(taken({"prompt": "Hi", "completion": "\n\n Ho "})[0])[-1] == ("assistant", "Ho ")
    assert said(taken({"question": "Hi", "answer": " Ho"})[0])[-1] == ("assistant", " Ho")


def test_a_system_column_speaks_first_in_a_list_of_messages() -> None:
    item, _ = taken({**SHAREGPT, "system": "Be kind."})
    assert said(item)[0] == ("system", "Be kind.")


def test_an_answer_one_level_down_is_taken_and_the_first_of_several() -> None:
    reader = RowReader()
    for answers in (
        [{"input": "", "output": "Ho"}],
        {"output": "Ho"},
        json.dumps([{"output": "Ho"}]),
        [{"output": "Ho"}, {"output": "Hey"}],
    ):
        assert reader.read({"instruction": "Hi", "instances": answers}) == CHAT
    assert dict(reader.notes) == {RowNote.NESTED: 1}
    assert reader.read({"id": 1, "conversation": {"question": "Hi", "answer": "Ho"}}) == CHAT


def node(role: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **more}


def test_one_path_of_a_tree_is_learned_along_the_best_replies() -> None:
    tree = node(
        "prompter",
        "Hi",
        node("assistant", "worse", node("prompter", "never"), rank=1),
        node("assistant", "Ho", node("prompter", "left out, no reply"), rank=0),
        node("assistant", "gone", rank=-1, deleted=True),
        node("assistant", "unranked", rank=None),
    )
    reader = RowReader()
    assert reader.read(tree) == CHAT
    assert reader.read({"message_tree_id": "x", "prompt": tree}) == CHAT
    assert dict(reader.notes) == {RowNote.TREE: 2}
    assert reader.read(node("user", "Hi", node("bot", "Ho"), node("bot", "later"))) == CHAT
    assert reason(node("prompter", "Hi")) == "it has no reply to learn from"


def test_deep_trees_are_followed_to_their_end() -> None:
    tree = node("assistant", "last")
    for depth in range(400):
        tree = node("assistant" if depth % 2 else "prompter", str(depth), tree)
    assert len(said(taken(node("prompter", "top", tree))[0])) == 402


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
        {"question": "Hi", "Chosen": "Ho", "Rejected": "No"},
        {"chosen": GOOD["messages"], "rejected": messages(("user", "Hi"), ("ai", "No"))},
        {"prompt": "Hi", "chosen": [GOOD["messages"][1]], "rejected": [], "messages": []},
        {"prompt": [GOOD["messages"][0]], "chosen": GOOD["messages"][1], "rejected": "No"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Ho", "rejected": "\n\nHuman: Hi\n\nAssistant: No"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Ho", "rejected": " No"},
    ],
)
def test_of_a_preference_pair_only_the_chosen_reply_is_learned_and_only_by_asking(
    row: dict[str, Any],
) -> None:
    with pytest.raises(PreferenceRow):
        taken(row)
    reader = RowReader("preference")
    item = reader.read(row)
    assert [(role, words.strip()) for role, words in said(item)] == said(CHAT)
    assert dict(reader.notes) == {RowNote.CHOSEN: 1}
    assert list(reader.formats) == ["preference"]


def test_whole_dialogues_become_turns() -> None:
    row = {"chosen": f"{DIALOGUE}A plum.", "rejected": f"{DIALOGUE}A stone."}
    assert said(taken(row, "preference")[0]) == [*FRUITS, ("assistant", "A plum.")]
    row = {"prompt": DIALOGUE, "chosen": "A plum.", "rejected": "A stone."}
    assert said(taken(row, "preference")[0]) == [*FRUITS, ("assistant", "A plum.")]


def test_preference_pairs_without_a_chosen_reply_are_refused() -> None:
    for row, expected in (
        (INSTRUCTION, "it has no chosen and rejected reply"),
        ({"chosen": "Ho", "rejected": "No"}, "it has no question"),
        ({"prompt": "Hi", "chosen": "", "rejected": "No"}, "a reply is empty"),
        ({"chosen": "\n\nHuman: Hi", "rejected": "No"}, "it has no chosen reply"),
    ):
        assert reason(row, "preference") == expected


def test_a_completion_that_is_labelled_bad_is_not_learned() -> None:
    row = {"prompt": "Hi", "completion": "Ho"}
    for good in (True, "true", None, 0, "polite"):
        assert taken({**row, "label": good})[0] == CHAT
    for bad in (False, "false", "False"):
        expected = "its reply is marked as a bad one (label is false)"
        assert reason({**row, "label": bad}) == expected


def test_columns_set_by_hand_win_over_guesses() -> None:
    row = {"question": "no", "Zeile": "Hi", "Sache": "Ho", "answer": "no", "messages": "no"}
    assert taken(row, prompt="Zeile", reply="Sache")[0] == CHAT
    assert taken({"question": "Hi", "said": "Ho"}, reply="said")[0] == CHAT
    assert taken({"log": GOOD["messages"], **INSTRUCTION}, messages="log") == (CHAT, "messages")
    extra = {"instruction": "Hi", "output": "Ho", "input": "not this"}
    assert taken(extra, input="")[0] == CHAT
    assert said(taken(extra, system="input")[0])[0] == ("system", "not this")
    assert taken({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, reply="chosen")[0] == CHAT
    assert reason({"Zeile": "Hi"}, prompt="Zeile").startswith("it has a question, but no reply")
    row = {"log": None, **INSTRUCTION, **GOOD}
    assert reason(row, messages="log") == "it has no list of messages"


def test_a_named_format_is_believed() -> None:
    assert reason(INSTRUCTION, "messages") == "it has no list of messages"
    assert reason("Once upon a time.", "messages") == "it is plain text"
    assert reason(GOOD, "instruction") == "no question and no reply are found in it"
    assert said(taken({**GOOD, **INSTRUCTION, "output": "Hey"}, "qa")[0])[1][1] == "Hey"
    assert taken(SHAREGPT, "sharegpt") == (CHAT, "messages")


def test_lists_of_tools_are_left_out_and_told() -> None:
    reader = RowReader()
    assert reader.read({**GOOD, "tools": [{"name": "look"}]}) == CHAT
    assert reader.read({**GOOD, "tools": []}) == CHAT
    assert dict(reader.notes) == {RowNote.TOOLS: 1}


def test_a_file_may_mix_formats_and_columns_are_those_of_most_rows() -> None:
    reader = RowReader()
    rows = [GOOD, INSTRUCTION, {"question": "Hi", "answer": "Ho"}, INSTRUCTION]
    assert [reader.read(row) for row in rows] == [CHAT] * 4
    assert reader.formats == {"instruction": 2, "messages": 1, "qa": 1}
    assert reader.columns == {"prompt": "instruction", "reply": "output"}
    assert list(reader.names) == ["messages", "instruction", "output", "question", "answer"]


def test_a_refused_row_is_counted_nowhere() -> None:
    reader = RowReader()
    with pytest.raises(RowError):
        reader.read(messages(("assistant", "Hello."), ("user", "Hi")))
    assert (reader.formats, dict(reader.notes), reader.columns) == ({}, {}, {})
