"""Where things are on the Compare page."""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from qft_gui.chat_room import Side
from qft_gui.fragments import render
from qft_gui.navigation import Navigation
from qft_gui.pages.parts import fragment, slot
from qft_gui.view.chat import side_head

NUM_CHIPS = 3


class CompareLayout:
    """The components of the page, in place."""

    def __init__(self, navigation: Navigation) -> None:
        fragment("title", title="Before and after", lede="Same question, same seed, same settings.")
        with gr.Row(elem_classes="q-pickers"):
            navigation.compared.render()
            navigation.chat_mode.render()
        with gr.Row(elem_classes="q-grid q-pair"):
            with gr.Column(elem_classes="q-card q-column", min_width=0) as self.left:
                base = self._side("base")
            with gr.Column(elem_classes="q-card q-column", min_width=0):
                tuned = self._side("tuned")
        self.heads, self.chats = [base[0], tuned[0]], [base[1], tuned[1]]
        self.said = slot()
        self._composer()
        with (
            gr.Accordion("Settings", open=False, elem_classes="q-more"),
            gr.Row(elem_classes="q-fields"),
        ):
            self.settings = self._settings()

    def _composer(self) -> None:
        with gr.Row(elem_classes="q-chips"):
            fragment("try")
            self.chips = [
                gr.Button("", visible=False, size="sm", min_width=80) for _ in range(NUM_CHIPS)
            ]
        with gr.Row(elem_classes="q-compose"):
            self.question = gr.Textbox(
                label="Question",
                show_label=False,
                container=False,
                placeholder="Ask something…",
                max_lines=6,
                elem_id="question",
            )
            self.send = gr.Button("Ask", variant="primary", min_width=88)
        with gr.Row(elem_classes="q-keep q-minor"):
            self.stop = gr.Button("Stop answering", interactive=False, min_width=120)
            self.clear = gr.Button("Clear", interactive=False, min_width=88)
            self.unload = gr.Button("Unload the models", interactive=False, min_width=120)

    @staticmethod
    def _settings() -> list[Component]:
        return [
            gr.Number(
                0.0,
                label="Temperature",
                step=0.1,
                info="0: always the likeliest word.",
                min_width=140,
            ),
            gr.Number(
                120,
                label="Longest answer",
                info="In tokens.",
                precision=0,
                min_width=140,
            ),
            gr.Number(0, label="Seed", info="Same seed, same answer.", precision=0, min_width=140),
            gr.Textbox(
                label="System prompt",
                info="Said to both before the chat.",
                max_lines=4,
                min_width=200,
            ),
        ]

    @staticmethod
    def _side(side: Side) -> tuple[gr.HTML, gr.Chatbot]:
        head = slot(render("side", **side_head(side, None)))
        chat = gr.Chatbot(
            label=f"{side} replies",
            show_label=False,
            container=False,
            elem_classes="q-chat",
            buttons=[],
            height=None,
            min_height=160,
            layout="bubble",
            allow_tags=False,
            feedback_options=None,
            elem_id=f"chat-{side}",
        )
        return head, chat
