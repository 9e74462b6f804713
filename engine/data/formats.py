"""What a row holds: messages, a question and its reply in columns of their own, or plain text.

Every row is looked at by itself, so a file may mix them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from engine.contract.spec import ColumnRole
from engine.data.cells import is_blank, is_missing, opened, text_of
from engine.data.chatgpt_export import is_export, shown_messages
from engine.data.columns import Format, Layout, Roles, layout_of
from engine.data.items import Item, Passage, Turn
from engine.data.messages import is_message
from engine.data.other_formats import known_but_unread
from engine.data.pairs import chat_of_pair, is_speech, nested_answer, turns_of_pairs
from engine.data.preference import PreferenceRow, chosen_chat
from engine.data.records import RowError
from engine.data.reply_tree import best_path, is_tree
from engine.data.row_notes import RowNote
from engine.data.turns import chat_of, in_order

MOST_COLUMNS = 50
MOST_NAMES = 1000
_MOST_LAYOUTS = 1024
_Read: TypeAlias = tuple[Item, Format, Roles]


class NoFormat(RowError):
    """A row in which neither messages nor question and reply are to be found."""


class RowReader:
    """Turns rows into items, and counts what it took them for.

    Args:
        format: What each row holds; `auto` looks at each row.
        columns: Columns whose role is set by hand. An empty name says that the role has none.
        is_running_text: Whether a text that is a row of its own is a stretch of a longer one.

    Attributes:
        notes: Rows read, by what was done to them.
        names: Columns seen, the first `MOST_COLUMNS` of them.
        absent: Columns set by hand that no row had.
    """

    def __init__(
        self,
        format: str = "auto",
        columns: Mapping[ColumnRole, str] | None = None,
        *,
        is_running_text: bool = True,
    ) -> None:
        self._is_running_text = is_running_text
        self._by_hand: Roles = tuple((columns or {}).items())
        self._format = "messages" if format == "sharegpt" else format
        self._is_free = format == "auto" and not columns
        self._layouts: dict[tuple[str, ...], Layout] = {}
        self._used: Counter[tuple[Format, Roles]] = Counter()
        self.absent = {name for _, name in self._by_hand if name}
        self.notes: Counter[RowNote] = Counter()
        self.names: dict[str, None] = {}

    @property
    def formats(self) -> dict[Format, int]:
        """Rows read, by format, the commonest first."""
        counts: Counter[Format] = Counter()
        for (format, _), count in self._used.items():
            counts[format] += count
        return dict(counts.most_common())

    @property
    def columns(self) -> dict[ColumnRole, str]:
        """The columns of most rows, by what they are."""
        return dict(self._used.most_common(1)[0][0][1]) if self._used else {}

    def read(self, value: Any) -> Item:
        """One row as a chat or a passage.

        Args:
            value: What stands in the file: an object, a text, or whatever else.

        Raises:
            RowError: Nothing can be learned from it, with the reason.
        """
        noticed: set[RowNote] = set()
        if type(value) is dict:
            item, format, columns = self._row(value, self._layout(value), noticed)
        elif isinstance(value, str):
            item, format, columns = self._passage(value), "text", ()
        elif isinstance(value, list) and value and is_message(value[0]):
            item, format, columns = chat_of(value, noticed), "messages", ()
        else:
            raise RowError("it is no JSON object")
        self._used[format, columns] += 1
        if noticed:
            self.notes.update(noticed)
        return item

    def _passage(self, text: str) -> Passage:
        if self._format not in ("auto", "text"):
            raise RowError("it is plain text")
        text = text_of(text, "the text")
        if is_blank(text):
            raise RowError("it is empty")
        return Passage(text, is_whole=not self._is_running_text)

    def _layout(self, row: Mapping[str, Any]) -> Layout:
        names = tuple(row)
        layout = self._layouts.get(names)
        if layout is None:
            if len(names) > MOST_NAMES:
                raise RowError(f"it has more than {MOST_NAMES:,} columns")
            layout = layout_of(names, self._by_hand)
            self.absent.difference_update(names)
            new = [name for name in names if name not in self.names]
            self.names |= dict.fromkeys(new[: MOST_COLUMNS - len(self.names)])
            if len(self._layouts) < _MOST_LAYOUTS:
                self._layouts[names] = layout
        return layout

    def _row(self, row: dict[str, Any], layout: Layout, noticed: set[RowNote]) -> _Read:
        """The row as what the format says, or what it looks like."""
        if self._is_free and layout.chosen is None:  # nearly every row, so nothing else is asked
            found = _messages(row, layout, noticed) or _pair(row, layout, noticed)
            if found is not None:
                return found
        by_hand = dict(self._by_hand)
        if self._format == "preference" and not by_hand.get("reply"):
            return chosen_chat(row, layout, noticed), "preference", layout.in_use
        if self._format == "text" or (self._format == "auto" and by_hand.get("text")):
            return _text(row, layout)
        if self._format == "messages" or by_hand.get("messages"):
            found = _messages(row, layout, noticed)
            if found is None and not by_hand.get("messages"):
                found = _any_messages(row, noticed)
            return found or _refuse(_no_messages(row, layout))
        if self._format == "auto" and layout.chosen is not None:
            raise PreferenceRow
        pairs_only = self._format != "auto" or by_hand.get("prompt") or by_hand.get("reply")
        found = (
            (None if pairs_only else _messages(row, layout, noticed))
            or _pair(row, layout, noticed)
            or self._nested_pair(row, noticed)
        )
        if found is None and not pairs_only:
            found = _any_messages(row, noticed) or _text_alone(row, layout)
        return found or _refuse(_lacking(row, layout))

    def _nested_pair(self, row: dict[str, Any], noticed: set[RowNote]) -> _Read | None:
        whole = nested_answer(row, self._by_hand, noticed)
        return _pair(whole, layout_of(tuple(whole), self._by_hand), noticed) if whole else None


def _messages(row: dict[str, Any], layout: Layout, noticed: set[RowNote]) -> _Read | None:
    """A list of messages in a column that is named like one, or a tree of replies."""
    for name in layout.conversations:
        entries = opened(row[name])
        if isinstance(entries, list) and entries and is_speech(entries[0]):
            return _chat(entries, name, row, layout, noticed)
    if layout.is_tree and is_tree(row):
        return _tree(row, (), noticed)
    if layout.is_tree and is_export(row):
        return chat_of(shown_messages(row, noticed), noticed), "messages", ()
    prompt = layout.columns.get("prompt")
    if prompt is not None and isinstance(row[prompt], dict) and is_tree(row[prompt]):
        return _tree(row[prompt], (("messages", prompt),), noticed)
    return None


def _tree(root: Mapping[str, Any], columns: Roles, noticed: set[RowNote]) -> _Read:
    noticed.add(RowNote.TREE)
    return in_order(best_path(root, noticed), noticed), "messages", columns


def _any_messages(row: dict[str, Any], noticed: set[RowNote]) -> _Read | None:
    """A list of messages in a column of any name."""
    for name, value in row.items():
        entries = opened(value)
        if isinstance(entries, list) and entries and is_message(entries[0]):
            return _chat(entries, name, row, layout_of(tuple(row)), noticed)
    return None


def _chat(
    entries: list[Any], name: str, row: dict[str, Any], layout: Layout, noticed: set[RowNote]
) -> _Read:
    columns: Roles = (("messages", name),)
    system = ""
    if "system" in layout.columns:
        column = layout.columns["system"]
        system = text_of(row[column], column)
        columns = (*columns, ("system", column))
    if layout.tools is not None and not is_missing(row[layout.tools]) and row[layout.tools]:
        noticed.add(RowNote.TOOLS)
    if is_message(entries[0]):
        return chat_of(entries, noticed, system), "messages", columns
    turns = [Turn("system", system), *turns_of_pairs(entries, noticed)]
    return in_order(turns, noticed), "messages", columns


def _pair(row: dict[str, Any], layout: Layout, noticed: set[RowNote]) -> _Read | None:
    """A question and a reply in columns of their own."""
    if "prompt" in layout.columns and "reply" in layout.columns:
        return chat_of_pair(row, layout, noticed), layout.format, layout.in_use
    return None


def _text_alone(row: dict[str, Any], layout: Layout) -> _Read | None:
    """A text with no other words beside it than its source, its date and the like."""
    if "text" not in layout.columns or layout.columns.keys() & {"prompt", "reply"}:
        return None
    if any(isinstance(row[name], str) and not is_blank(row[name]) for name in layout.others):
        return None
    return _text(row, layout)


def _text(row: dict[str, Any], layout: Layout) -> _Read:
    """The text column, whatever stands beside it; or the only column that holds words."""
    name = layout.columns.get("text")
    if name is None:
        words = [name for name, value in row.items() if isinstance(value, str)]
        if len(words) != 1:
            raise NoFormat("it has no column that is known to hold its text")
        name = words[0]
    text = text_of(row[name], name)
    if is_blank(text):
        raise RowError("its text is empty")
    return Passage(text, is_whole=True), "text", (("text", name),)


def _refuse(reason: RowError) -> Any:
    raise reason


def _no_messages(row: dict[str, Any], layout: Layout) -> RowError:
    return _bad_messages(row, layout) or NoFormat("it has no list of messages")


def _bad_messages(row: dict[str, Any], layout: Layout) -> RowError | None:
    """Why a list in a column that is named like one of messages is none; None without a list."""
    for name in layout.conversations:
        entries = opened(row[name])
        if entries == []:
            return RowError("it has no messages")
        if isinstance(entries, list) and isinstance(entries[0], dict):
            try:
                turns_of_pairs(entries, set())
            except RowError as error:
                return error
    return None


def _lacking(row: dict[str, Any], layout: Layout) -> RowError:
    """Why nothing was found in a row."""
    bad = _bad_messages(row, layout) or known_but_unread(row)
    if bad is not None:
        return bad
    if "prompt" in layout.columns:
        return NoFormat("it has a question, but no reply that is known here")
    if "reply" in layout.columns:
        return NoFormat("it has a reply, but no question that is known here")
    if "text" in layout.columns:
        return NoFormat("it has a text beside other words, but no reply that is known here")
    return NoFormat("no question and no reply are found in it")
