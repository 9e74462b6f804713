"""Compare: one question, two answers; the model before and after, side by side."""

from __future__ import annotations

import gradio as gr

from qft_gui.chat_room import ChatRoom
from qft_gui.comparing.desk import CompareDesk
from qft_gui.fragments import render, script
from qft_gui.navigation import QUIETLY, Navigation
from qft_gui.pages.parts import fragment
from qft_gui.service import Service

SCRIPTS = ("compare_turns.js", "compare_cards.js", "compare.js")


def build(service: Service, room: ChatRoom, navigation: Navigation, *, is_for_others: bool) -> None:
    """Lay the page out and wire it.

    The page is one piece of HTML that is never replaced: its scripts ask for what changed, so a
    long conversation is sent once, and nothing of it is markup.

    Args:
        service: The runs.
        room: The chat.
        navigation: The way to other pages.
        is_for_others: Whether other computers can reach the page.
    """
    fragment("title", title="Compare", lede="Same question, same seed, same settings.")
    desk = CompareDesk(service, room, is_for_others=is_for_others)

    def compare(request: dict[str, object]) -> dict[str, object]:
        return desk.answer(request)

    page = gr.HTML(
        render("compare"),
        apply_default_css=False,
        js_on_load=script(*SCRIPTS),
        server_functions=[compare],
        talk=None,
        elem_id="compare",
    )
    navigation.talk.change(lambda talk: gr.HTML(talk=talk), navigation.talk, page, **QUIETLY)
