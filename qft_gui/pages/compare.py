"""Compare: one question, two answers; the model before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from engine.contract.bundled import sample_datasets
from engine.contract.errors import RequestError
from qft_gui.chat_room import SIDES, Answer, ChatRoom, Settings, Side
from qft_gui.fragments import render
from qft_gui.navigation import QUIETLY, Navigation, choices
from qft_gui.pages.compare_layout import NUM_CHIPS, CompareLayout
from qft_gui.service import Service
from qft_gui.view.chat import loading_line, side_head
from qft_gui.view.sentences import sentence

NOTHING_TRAINED = "Nothing is trained yet. Open Setup, press Start, and come back when it is done."
NUM_SHOWN = 9  # two chats, two heads, the sentence, the question, the histories, Stop, Clear
STREAMED: dict[str, Any] = {
    "concurrency_limit": 8,
    "show_progress": "hidden",
    "api_visibility": "private",
}
Histories = dict[Side, list[dict[str, str]]]


def build(service: Service, room: ChatRoom, navigation: Navigation, tab: gr.Tab) -> None:
    """Lay the page out and wire it."""
    page, answers = CompareLayout(navigation), _Answers(service, room)
    histories = gr.State({})
    shown = [*page.chats, *page.heads, page.said, page.question, histories]
    shown += [page.stop, page.clear]
    settings = [navigation.compared, navigation.chat_mode, histories, *page.settings]
    asked: list[Any] = [
        gr.on(
            [page.send.click, page.question.submit],
            answers.ask,
            [page.question, *settings],
            shown,
            **STREAMED,
        )
    ]
    for chip in page.chips:
        asked.append(chip.click(answers.ask, [chip, *settings], shown, **STREAMED))
    page.stop.click(room.stop, None, None, **QUIETLY)
    asked.append(page.clear.click(_cleared, None, shown, cancels=list(asked), **QUIETLY))
    page.unload.click(answers.unload, None, [page.said, page.unload], **QUIETLY)
    for event in asked:
        event.then(answers.unloadable, None, page.unload, **QUIETLY)
    compared, mode = navigation.compared, navigation.chat_mode
    compared.change(answers.meet, compared, [*shown, *page.chips], **QUIETLY)
    mode.change(_in_mode, mode, [*shown, page.left], **QUIETLY)
    opened = [tab.select, navigation.blocks.load]
    gr.on(opened, answers.offer, compared, [compared, page.said, page.unload], **QUIETLY)


class _Answers:
    """What the page's buttons do."""

    def __init__(self, service: Service, room: ChatRoom) -> None:
        self._service = service
        self._room = room

    def unloadable(self) -> Any:
        """Unload is offered only while there is something to unload."""
        return gr.Button(interactive=self._room.is_loaded)

    def offer(self, chosen: str | None) -> tuple[Any, str, Any]:
        """The runs that can be compared, and what to do if there is none."""
        names = [one.name for one in self._service.snapshots() if one.has_export]
        kept = chosen if chosen in names else (names[0] if names else None)
        nothing = "" if names else NOTHING_TRAINED
        said = render("sentence", tone="plain", text=nothing)
        return choices(names, kept), said, self.unloadable()

    def meet(self, name: str | None) -> list[Any]:
        """Another run: an empty page, and its data's own prompts to try.

        The question stays: someone fast has typed it before this arrives.
        """
        prompts = _prompts(self._service, name)
        chips = [
            gr.Button(prompts[at], visible=True) if at < len(prompts) else gr.Button(visible=False)
            for at in range(NUM_CHIPS)
        ]
        return [*_frame({}, None, None), *chips]

    def ask(
        self, question: str, name: str | None, mode: str, past: Histories, *settings: Any
    ) -> Iterator[list[Any]]:
        """The page again and again while the answers are written."""
        text = (question or "").strip()
        if not text:
            yield [gr.skip() for _ in range(NUM_SHOWN)]
            return
        try:
            models = self._service.export_of(name)
        except (RequestError, FileNotFoundError) as error:
            why = sentence(error) if name and isinstance(error, RequestError) else NOTHING_TRAINED
            yield _frame(past, None, question, why)
            return
        sides = SIDES if mode == "both" else ("tuned",)
        asked: Histories = {
            side: [*past.get(side, []), {"role": "user", "content": text}] for side in sides
        }
        now, last = past, Answer()
        for answer in self._room.ask(models, asked, Settings.of(*settings)):
            unanswered = answer.problem and not answer.replies
            now, last = past if unanswered else _with_replies(past, asked, answer), answer
            yield _frame(now, answer, question, is_answering=not answer.problem)
        yield _frame(now, last, question)

    def unload(self) -> tuple[str, Any]:
        """Free the models' memory."""
        freed = self._room.unload()
        said = "Both models left memory." if freed else "An answer is being given; stop it first."
        return render("sentence", tone="plain", text=said), self.unloadable()


def _in_mode(mode: str) -> list[Any]:
    """An empty page: conversations that differ in length cannot be compared."""
    return [*_cleared(), gr.Column(visible=mode == "both")]


def _with_replies(past: Histories, asked: Histories, answer: Answer) -> Histories:
    now: Histories = {side: list(turns) for side, turns in past.items()}
    for side, turns in asked.items():
        reply = answer.replies.get(side)
        said = [{"role": "assistant", "content": reply.text}] if reply and reply.text else []
        now[side] = [*turns, *said]
    return now


def _frame(
    now: Histories,
    answer: Answer | None,
    question: str | None,
    problem: str | None = None,
    *,
    is_answering: bool = False,
) -> list[Any]:
    problem = problem if answer is None else answer.problem
    said = problem or ""
    if answer is not None and answer.loading_s is not None:
        said = loading_line(answer.loading_s)
    return [
        *(now.get(side, []) for side in SIDES),
        *(render("side", **side_head(side, answer)) for side in SIDES),
        render("sentence", tone="bad" if problem else "plain", text=said),
        gr.skip() if question is None else question if problem else "",
        now,
        gr.Button(interactive=is_answering),
        gr.Button(interactive=is_answering or bool(now)),
    ]


def _cleared() -> list[Any]:
    return _frame({}, None, "")


def _prompts(service: Service, name: str | None) -> tuple[str, ...]:
    try:
        spec = service.snapshot(name).spec
    except (RequestError, FileNotFoundError):
        return ()
    sample = sample_datasets().get(spec.data.source) if spec else None
    return sample.prompts if sample else ()
