"""Who speaks in a message: every spelling of a role, and names that are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.data.items import Role
from engine.data.mendable import MendableRow
from engine.data.names import folded

_SPOKEN: dict[Role, str] = {
    "system": "system developer systemprompt systemmessage",
    "user": "user human prompter person customer client question you student usermessage "
    "instruction input q benutzer nutzer usuario usuário utente utilisateur 用户 ユーザー",
    "assistant": "assistant gpt bot model chatgpt bing bard claude gemini ai llm agent chatbot "
    "answer aiassistant gpt4 gpt35 gpt3.5 gpt4o llama assistantmessage response output a asst "
    "deepseek mistral qwen copilot grok assistent asistente assistente 助手 アシスタント",
    "tool": "tool function observation ipython environment functionresponse functionresult "
    "toolresponse toolresult toolresults functionoutput tooloutput",
}
ROLES: dict[str, Role] = {name: role for role, names in _SPOKEN.items() for name in names.split()}
_ADVICE = (
    "Write user and assistant in place of such names: assistant for the one that the model is to "
    "speak as."
)
_MOST_SHOWN = 3


class UnknownSpeaker(MendableRow):
    """A message by somebody who is neither user, assistant, system nor tool."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, _ADVICE)


def role_named(name: str) -> Role | None:
    """The role of a name, which may end with a colon; None if it is none."""
    return ROLES.get(folded(name).rstrip(":"))


def role_of(speaker: Any) -> Role:
    """The role that a message names.

    Raises:
        RowError: There is none, or it is not known.
    """
    if isinstance(speaker, dict):  # an author with a role, or only with a name
        if not isinstance(speaker.get("role"), str):
            raise _unknown(_called(speaker))
        speaker = speaker["role"]
    role = role_named(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise _unknown(_called(speaker))
    return role


def by_strangers(speakers: Sequence[Any]) -> UnknownSpeaker | None:
    """Why a chat between people is refused; None if any of its speakers has a role, or none a name.

    Who of two people is the model nobody but the owner of the data can say, so it is not guessed.
    """
    names = dict.fromkeys(_called(speaker) for speaker in speakers)
    if len(names) < 2 or not all(names):
        return None
    if any(isinstance(one, dict) and "role" in one for one in speakers):
        return None
    if any(isinstance(one, str) and role_named(one) for one in speakers):
        return None
    shown = [repr(name[:40]) for name in list(names)[:_MOST_SHOWN]]
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown):,} more")
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return UnknownSpeaker(f"its messages are by {listed}: these are names, not roles")


def _called(speaker: Any) -> str:
    """The name of a speaker; empty if there is none."""
    if isinstance(speaker, dict):
        keys = ("role", "name", "nickname", "username", "display_name")
        speaker = next((speaker[key] for key in keys if speaker.get(key)), None)
    return speaker.strip() if isinstance(speaker, str) else ""


def _unknown(name: str) -> UnknownSpeaker:
    if not name:
        return UnknownSpeaker("a message has no role")
    return UnknownSpeaker(f"a message has the unknown role {name[:40]!r}")
