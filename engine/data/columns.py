"""Which of a row's columns is what: told by their names, or set by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from engine.contract.spec import ColumnRole
from engine.data.chatgpt_export import TREE
from engine.data.names import folded

# What a row can hold its words as. ShareGPT's turns are messages.
Format = Literal["messages", "instruction", "completion", "qa", "preference", "text"]
Roles: TypeAlias = tuple[tuple[ColumnRole, str], ...]

# Names as `folded` writes them, those that say most first.
CONVERSATIONS = (
    "messages", "conversations", "conversation", "dialog", "dialogue", "dialogs", "dialogues",
    "chat", "chats", "turns", "chatmessages",
)  # fmt: skip
_NAMES: dict[ColumnRole, tuple[str, ...]] = {
    "prompt": (
        "instruction", "instructions", "prompt", "question", "query", "problem", "request",
        "user", "human", "usermessage", "userprompt", "userinput", "inputs", "q",
        "frage", "pregunta", "domanda", "pergunta", "问题", "質問",
    ),
    "input": ("input", "context"),
    "reply": (
        "output", "outputs", "response", "solution", "answer", "answers", "completion", "reply",
        "assistant", "bot", "gpt", "chatgpt", "modeloutput", "modelresponse", "modelanswer",
        "assistantresponse", "assistantmessage", "botresponse", "airesponse", "target", "targets",
        "a", "antwort", "respuesta", "réponse", "reponse", "risposta", "resposta", "回答",
    ),
    "system": ("system", "systemprompt", "systemmessage", "sysprompt"),
    "history": ("history", "chathistory"),
    "text": ("text", "content"),
}  # fmt: skip
_QUESTIONS = frozenset(
    {"question", "query", "problem", "q", "frage", "pregunta", "domanda", "pergunta"}
    | {"问题", "質問"}
)
_CHOSEN = ("chosen", "chosenresponse", "responsechosen")
_REJECTED = ("rejected", "rejectedresponse", "responserejected")
BRANCHES = ("replies", "children")
_TOOLS = ("tools", "functions")
# What stands beside a text without being an answer to it.
_COMPANY = frozenset(
    (
        "id", "ids", "uuid", "guid", "docid", "index", "idx", "unnamed0", "url", "urls", "link",
        "href", "title", "headline", "heading", "name", "filename", "file", "filepath", "path",
        "repo", "reponame", "timestamp", "time", "date", "datetime", "created", "createdat",
        "updated", "year", "added", "source", "subset", "dataset", "split", "domain", "meta",
        "metadata", "dump", "crawl", "warc", "language", "lang", "languagecode", "license",
        "licence", "author", "authors", "byline", "publisher", "publication", "hash", "sha",
        "sha256", "md5", "digest", "mimetype", "contenttype", "type", "category", "tag", "tags",
        "topic", "section", "genre",
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of one kind of row are.

    Attributes:
        format: Of rows with a question and a reply in columns of their own.
        columns: The column of each role that there is.
        conversations: Columns that may hold a list of messages, the likeliest first.
        chosen: Column of the better of two replies, where the other has one too.
        label: Column that marks a completion as good or bad.
        tools: Column that lists tools.
        is_tree: Whether a row may be a tree of messages.
        others: Columns beside the text that are not its usual company.
        in_use: The columns of question and reply with their roles.
        is_simple: Whether a row can be nothing but question, input and reply.
    """

    format: Format
    columns: dict[ColumnRole, str]
    conversations: tuple[str, ...]
    chosen: str | None
    label: str | None
    tools: str | None
    is_tree: bool
    others: tuple[str, ...]
    in_use: Roles
    is_simple: bool


@lru_cache(maxsize=1024)
def layout_of(names: tuple[str, ...], set_by_hand: Roles = ()) -> Layout:
    """The columns of a row that has these names.

    Args:
        names: In the order of the row.
        set_by_hand: Roles with their columns. An empty name says that the role has no column.
    """
    by_hand = dict(set_by_hand)
    taken = set(by_hand.values())
    by_folded = {folded(str(name)): name for name in reversed(names) if name not in taken}

    def first(wanted: Sequence[str]) -> str | None:
        return next((by_folded[name] for name in wanted if name in by_folded), None)

    columns = _guessed(names, by_hand, first)
    chosen, rejected = first(_CHOSEN), first(_REJECTED)
    label = first(("label",)) if folded(columns.get("reply", "")) == "completion" else None
    conversations = [by_folded[name] for name in CONVERSATIONS if name in by_folded]
    if "messages" in by_hand:
        conversations = [by_hand["messages"]] if by_hand["messages"] in names else []
    text, format = columns.get("text"), _format(columns)
    parts: dict[ColumnRole, str] = {
        role: column for role, column in columns.items() if role not in ("text", "messages")
    }
    return Layout(
        format=format,
        columns=columns,
        conversations=tuple(conversations),
        chosen=chosen if rejected is not None else None,
        label=label,
        tools=first(_TOOLS),
        is_tree=any(name in names for name in (*BRANCHES, TREE)),
        others=tuple(name for name in names if name != text and not _is_company(name)),
        in_use=tuple(parts.items()),
        is_simple=format != "completion" and parts.keys() <= {"prompt", "input", "reply"},
    )


def _guessed(
    names: tuple[str, ...],
    by_hand: Mapping[ColumnRole, str],
    first: Callable[[Sequence[str]], str | None],
) -> dict[ColumnRole, str]:
    """The column of each role: the one set by hand, else the one whose name says most."""
    columns: dict[ColumnRole, str] = {}
    for role, wanted in _NAMES.items():
        column = by_hand[role] if role in by_hand else first(wanted)
        if column is not None and column in names:
            columns[role] = column
    if "prompt" not in columns and "prompt" not in by_hand and "input" not in by_hand:
        alone, context = first(("input",)), first(("context",))
        if alone is not None:  # an input without an instruction is the question
            columns["prompt"] = columns.pop("input")
            columns |= {"input": context} if context is not None else {}
    return columns


def _format(columns: Mapping[ColumnRole, str]) -> Format:
    prompt, reply = folded(columns.get("prompt", "")), folded(columns.get("reply", ""))
    if prompt in _QUESTIONS:
        return "qa"
    if reply == "completion" or prompt == "prompt":
        return "completion"
    return "instruction"


def _is_company(name: str) -> bool:
    """Whether a column is of the kind that stands beside a text: ids, places, dates, counts."""
    short = folded(str(name))
    return short in _COMPANY or short.endswith(("id", "score", "count", "url", "length", "date"))
