"""Templates are rendered in a process of their own: as transformers would, and within limits."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from engine.contract.errors import RequestError
from engine.data.chat import DEFAULT_TEMPLATE
from engine.data.template_process import MOST_SOURCE, TemplateProcess, template_process
from tests.tiny import TEMPLATE, tiny_tokenizer

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Wer bäckt? <b>"},
    {"role": "assistant", "content": "Mara."},
]
CALLING = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"type": "function", "function": {"name": "w", "arguments": {"city": "Ulm, <ä>"}}}
        ],
    },
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "3 degrees."},
]
# What models' templates use: filters, loop controls, generation marks, name spaces, white space.
LIKE_LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- system_message }}<|eot_id|>
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LIKE_QWEN = """{%- set ns = namespace(calls=0) %}
{%- for message in messages %}
    {%- if message.role == "assistant" and message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- set ns.calls = ns.calls + 1 %}
            {%- set tool_call = tool_call.function %}
            {{- '\\n<tool_call>\\n' }}{{ tool_call.arguments | tojson }}
            {{- tool_call.arguments | tojson(indent=2) }}
            {{- tool_call.name }}{{ ns.calls }}
        {%- endfor %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}{{- message.content }}{% endgeneration %}
    {%- endif %}
    {%- if loop.index > 9 %}{% break %}{% endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
BOMBS = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{% set x = 'a' * 2000000000 %}{{ x[0] }}",
    "output": "{% for a in range(90000) %}{{ 'aaaaaaaaaa' }}{% endfor %}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attribute": "{{ messages[0].nothing.more }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "division": "{{ 1 // 0 }}",
    "concatenation": "{{ 'a' + 1 }}",
}


@pytest.fixture
def process() -> Iterator[Any]:
    made: list[TemplateProcess] = []

    def make(template: str, **limits: Any) -> TemplateProcess:
        made.append(TemplateProcess(template, VARIABLES, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("template", "chat"),
    [
        (TEMPLATE, CHAT),
        (DEFAULT_TEMPLATE, CHAT),
        (LIKE_LLAMA3, CHAT),
        (LIKE_QWEN, CHAT),
        (LIKE_QWEN, CALLING),
    ],
)
def test_texts_are_those_of_transformers(template: str, chat: list[dict[str, Any]]) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    process = template_process(tokenizer)
    (rendered,) = process.chats([chat])
    assert rendered.text == tokenizer.apply_chat_template(chat, tokenize=False)
    for begun in (chat[:1], chat[:2]):
        whole = tokenizer.apply_chat_template(begun, tokenize=False, add_generation_prompt=True)
        assert process.prompt(begun).text == whole


def test_a_chat_that_is_refused_spoils_no_other(process: Any) -> None:
    refusing = "{% if messages|length > 2 %}{{ raise_exception('too long') }}{% endif %}" + TEMPLATE
    long = [CHAT[1], CHAT[2], CHAT[1], CHAT[2]]
    answers = process(refusing).chats([CHAT[1:], long, CHAT[1:]])
    assert [answer.refusal for answer in answers] == ["", "too long", ""]
    assert answers[0] == answers[2]


def test_training_does_not_depend_on_the_day(process: Any) -> None:
    dated = process("{{ strftime_now('%Y-%m-%d') }}" + TEMPLATE)
    (rendered,) = dated.chats([CHAT])
    assert rendered.text.startswith("2026-01-01<|im_start|>")
    today = dated.prompt(CHAT[:2]).text[:10]
    assert abs(time.mktime(time.strptime(today, "%Y-%m-%d")) - time.time()) < 3 * 86_400


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_goes_too_far_is_a_sentence(process: Any, bomb: str) -> None:
    if bomb == "memory" and sys.platform == "win32":
        pytest.skip("Windows limits no memory of a process")
    started = time.monotonic()
    one = process(BOMBS[bomb] + TEMPLATE, seconds=2.0)
    sentence = refusal(one)
    assert sentence
    assert time.monotonic() - started < 8
    expected = {"endless": "more than 2 s", "memory": "memory", "output": "characters"}
    assert expected.get(bomb, "") in sentence


def refusal(process: TemplateProcess) -> str:
    """Why a chat is not rendered, for its own sake or the template's."""
    try:
        return process.chats([CHAT[1:]])[0].refusal
    except RequestError as error:
        return str(error)


def test_after_a_time_out_the_next_chat_is_rendered(process: Any) -> None:
    slow = "{% if messages[0].content == 'slow' %}" + BOMBS["endless"] + "{% endif %}" + TEMPLATE
    one = process(slow, seconds=2.0)
    with pytest.raises(RequestError, match="more than 2 s"):
        one.chats([[{"role": "user", "content": "slow"}]])
    assert one.prompt(CHAT[:2]).text.endswith("assistant\n")


@pytest.mark.parametrize("source", ["{% for %}", "{{ 'unclosed", "{% include 'x' %}{% endif %}"])
def test_a_broken_template_is_a_sentence(process: Any, source: str) -> None:
    with pytest.raises(RequestError, match="its chat template is broken"):
        process(source).chats([CHAT])


def test_a_giant_template_is_refused() -> None:
    with pytest.raises(RequestError, match="characters"):
        TemplateProcess("a" * (MOST_SOURCE + 1), VARIABLES)


def test_a_chat_that_takes_too_long_is_refused_by_itself(process: Any) -> None:
    slow = "{% if messages[0].content == 'slow' %}" + BOMBS["endless"] + "{% endif %}" + TEMPLATE
    one = process(slow, seconds=1.5)
    long = [{"role": "user", "content": "slow"}, CHAT[2]]
    answers = one.chats([CHAT[1:], long, CHAT])
    assert [answer.refusal for answer in answers] == ["", "it takes more than 1.5 s", ""]
    assert answers[2].text.startswith("<|im_start|>system")
