"""The conversations of all tabs, and the threads in which their questions are answered."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import closing

from engine.contract.errors import RequestError
from qft_gui.answers import Answer, Settings, Side
from qft_gui.chat_room import ChatRoom, Models
from qft_gui.comparing.conversation import Conversation, Messages, Turn
from qft_gui.comparing.sides import Sides
from qft_gui.view.chat import loading_line

MOST_CONVERSATIONS = 32
MOST_TURNS = 500
MOST_QUESTION = 3 << 20  # characters; the worker and the model say what is too long for them
UNSEEN_S = 90.0  # a hidden tab looks once a minute
_KEY = re.compile(r"[0-9a-f]{32}")


class Talks:
    """Finds a tab's conversation by its key, and has its questions answered.

    A conversation is kept as long as the app runs and others do not push it out.

    Args:
        room: Who answers.
        sides: Who may be asked.
    """

    def __init__(self, room: ChatRoom, sides: Sides) -> None:
        self._room = room
        self._sides = sides
        self._lock = threading.Lock()
        self._conversations: OrderedDict[str, Conversation] = OrderedDict()

    def of(self, key: object) -> Conversation:
        """The conversation of a tab; a new one for a key that is not known.

        Raises:
            RequestError: It is no key.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise RequestError("key", "The page is out of date.", "Load it again.")
        with self._lock:
            if key not in self._conversations:
                self._make_room()
                self._conversations[key] = Conversation()
            self._conversations.move_to_end(key)
            return self._conversations[key]

    def _make_room(self) -> None:
        for key, one in list(self._conversations.items()):
            if len(self._conversations) < MOST_CONVERSATIONS:
                return
            if not one.is_answering:
                del self._conversations[key]

    def ask(
        self, conversation: Conversation, question: object, settings: Settings, *, is_blind: bool
    ) -> None:
        """Have a question answered by all sides, in a thread.

        Raises:
            RequestError: There is nothing to ask, nobody to answer, or an answer on its way.
        """
        text = question.strip() if isinstance(question, str) else ""
        if not text:
            raise RequestError("question", "The question is empty.", "Write one.")
        if len(text) > MOST_QUESTION:
            raise RequestError("question", "The question is too long to send.", "Shorten it.")
        if conversation.is_answering:
            raise RequestError("question", "An answer is being given.", "Wait for it, or stop it.")
        if len(conversation.turns) >= MOST_TURNS:
            raise RequestError("question", f"It has {MOST_TURNS} turns.", "Clear it first.")
        pair = conversation.pair
        models = self._sides.targets(pair)
        blind = is_blind and len(pair.sides) == 2
        names = self._sides.names(pair)
        turn, messages = conversation.begin(text, pair.sides, settings, names, is_blind=blind)
        self._answer(conversation, turn, models, messages, settings)

    def ask_again(
        self, conversation: Conversation, sides: tuple[Side, ...], settings: Settings
    ) -> None:
        """Have the last question answered anew.

        Raises:
            RequestError: There is none, or an answer is on its way.
        """
        if not conversation.turns or conversation.is_answering:
            raise RequestError("turn", "There is no answer to write anew yet.", "Ask first.")
        last = conversation.turns[-1]
        chosen: tuple[Side, ...] = tuple(side for side in last.order if side in sides) or last.order
        if last.is_blind:
            chosen = last.order
        models = self._sides.targets(conversation.pair)
        turn, messages = conversation.begin_again(chosen, settings)
        self._answer(conversation, turn, models, messages, settings)

    def stop(self, conversation: Conversation) -> None:
        """End the answers of this conversation."""
        if conversation.is_answering:
            self._room.stop()

    def _answer(
        self,
        conversation: Conversation,
        turn: Turn,
        models: Models,
        messages: Messages,
        settings: Settings,
    ) -> None:
        work = (conversation, turn, models, messages, settings)
        threading.Thread(target=self._work, args=work, name="answer", daemon=True).start()

    def _work(
        self,
        conversation: Conversation,
        turn: Turn,
        models: Models,
        messages: Messages,
        settings: Settings,
    ) -> None:
        problem = "The answer ended unexpectedly."
        try:
            with closing(self._room.ask(models, messages, varied(settings, turn))) as answers:
                for answer in answers:
                    conversation.update(turn, answer, _loading(answer, turn.names))
                    if time.monotonic() - conversation.seen > UNSEEN_S:
                        break
            problem = ""
        finally:
            conversation.finish(turn, problem)


def varied(settings: Settings, turn: Turn) -> Settings:
    """The settings of a reply that is written anew: another draw of the same lot."""
    return settings.with_seed(settings.seed + turn.generation)


def _loading(answer: Answer, names: Mapping[Side, str]) -> str:
    if answer.loading_s is None:
        return ""
    return loading_line(answer.loading_s, answer.expected_s, len(names))
