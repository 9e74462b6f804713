"""How a dataset is read: which format, which column is what, as selects with what was found."""

from __future__ import annotations

from typing import Any, get_args

from engine.contract.spec import DataFormat
from qft_gui.data_check import DataCheck
from qft_gui.data_wish import Reading

FORMAT_NAMES: dict[str, str] = {
    "messages": "Chats",
    "instruction": "Instruction and reply",
    "completion": "Prompt and completion",
    "qa": "Question and answer",
    "preference": "Preference pairs, the chosen replies",
    "text": "Plain text",
}
ROLE_NAMES: dict[str, str] = {
    "messages": "Messages",
    "system": "System",
    "history": "Earlier turns",
    "prompt": "Prompt",
    "input": "Input",
    "reply": "Reply",
    "text": "Text",
}
# The roles that the columns of a format can have; those of an unknown one are all that matter.
_ROLES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "system"),
    "instruction": ("prompt", "input", "reply", "system", "history"),
    "completion": ("prompt", "reply", "system"),
    "qa": ("prompt", "reply", "system"),
    "preference": (),
    "text": ("text",),
}
_EVERY_ROLE = ("prompt", "input", "reply", "system", "messages", "text")
# Encodings that files come in, by the name that Python has for them.
ENCODINGS: dict[str, str] = {
    "utf-8": "UTF-8",
    "utf-16": "UTF-16",
    "cp1252": "Windows-1252, Western Europe",
    "cp1250": "Windows-1250, Central Europe",
    "cp1251": "Windows-1251, Cyrillic",
    "koi8-r": "KOI8-R, Cyrillic",
    "cp1253": "Windows-1253, Greek",
    "cp1254": "Windows-1254, Turkish",
    "iso8859-15": "ISO 8859-15, Western Europe",
    "mac-roman": "Mac Roman",
    "cp932": "Shift JIS, Japanese",
    "euc-jp": "EUC-JP, Japanese",
    "gb18030": "GBK, Chinese",
    "big5": "Big5, Chinese",
    "euc-kr": "EUC-KR, Korean",
}
# Mistakes that are mended where the reading is set by hand.
_READING = ("data.format", "data.columns", "data.encoding", "data.config", "data.split")


def mapping(reading: Reading, check: DataCheck | None, *, is_hub: bool) -> dict[str, Any] | None:
    """How a file is read, as selects with what was found filled in; None if there is no choice.

    Args:
        reading: What a person said.
        check: What the engine found.
        is_hub: Whether there are configs and splits to name.
    """
    if check is None and not is_hub and reading == Reading(reading.source):
        return None
    by_hand = dict(reading.columns)
    found = check.columns if check else {}
    names = list(check.available_columns) if check else []
    names += [name for name in by_hand.values() if name not in names]
    kind = reading.format or (format_of(check) if check else None)
    roles = _ROLES.get(kind or "", _EVERY_ROLE)
    roles += tuple(role for role in (*found, *by_hand) if role not in roles)
    field = check.error.field if check and check.error else ""
    fields = [
        _select(role, ROLE_NAMES[role], names, by_hand.get(role, ""), found.get(role))
        for role in dict.fromkeys(roles)
        if role in ROLE_NAMES
    ]
    return {
        "format": _format_select(reading.format, check),
        "columns": fields if names else [],
        "encoding": _encoding_select(reading.encoding, check),
        "in_use": _in_use(found),
        "is_by_hand": bool(reading.format or by_hand or reading.encoding),
        "is_open": field.startswith(_READING) or (field == "data.source" and names),
        "places": _places(reading) if is_hub else [],
    }


def _in_use(found: dict[str, str]) -> str:
    """Which column is what, where its name does not say it."""
    named = [(role, name) for role, name in found.items() if role != name.lower()]
    return ", ".join(f"{name} is the {ROLE_NAMES.get(role, role).lower()}" for role, name in named)


def format_of(check: DataCheck) -> str | None:
    """What most rows were taken for; ShareGPT's turns are messages."""
    return "messages" if check.format == "sharegpt" else check.format


def _format_select(by_hand: str, check: DataCheck | None) -> dict[str, Any]:
    found = FORMAT_NAMES.get(format_of(check) or "") if check and not by_hand else None
    automatic = f"{found} (found)" if found else "Find out from the content"
    known = [name for name in get_args(DataFormat) if name != "auto"]
    return {
        "act": "format",
        "role": "",
        "label": "Format",
        "value": by_hand,
        "choices": [("", automatic), *((name, FORMAT_NAMES[name]) for name in known)],
    }


def _encoding_select(by_hand: str, check: DataCheck | None) -> dict[str, Any] | None:
    """The encoding of a text file; None for what says so itself."""
    found = check.encoding if check else None
    if not found and not by_hand:
        return None
    automatic = f"{found} (found)" if found and not by_hand else "Find out from the content"
    return {
        "act": "encoding",
        "role": "",
        "label": "Encoding",
        "value": by_hand,
        "choices": [("", automatic), *ENCODINGS.items()],
    }


def _select(
    role: str, label: str, names: list[str], by_hand: str, found: str | None
) -> dict[str, Any]:
    automatic = f"{found} (found)" if found and not by_hand else "None found"
    return {
        "act": "column",
        "role": role,
        "label": label,
        "value": by_hand,
        "choices": [
            ("", "Find out from the content" if by_hand else automatic),
            *((name, name) for name in names),
        ],
    }


def _places(reading: Reading) -> list[dict[str, str]]:
    return [
        {"act": "config", "label": "Part of the dataset", "value": reading.config},
        {"act": "split", "label": "Split", "value": reading.split},
    ]
