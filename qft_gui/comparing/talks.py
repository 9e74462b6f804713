"""The conversations of all tabs, and the threads in which their questions are answered."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing

from engine.contract.errors import RequestError
from qft_gui.answers import Answer, Reply, Settings, Side
from qft_gui.chat_floor import Asker
from qft_gui.chat_room import ChatRoom, Models
from qft_gui.comparing.conversation import Conversation, Messages
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides
from qft_gui.comparing.turn import Turn
from qft_gui.view.chat import fetching_line, loading_line
from qft_gui.view.numbers import duration

MOST_CONVERSATIONS = 32
MOST_TURNS = 500
MOST_QUESTION = 3 << 20  # characters; the worker and the model say what is too long for them
UNSEEN_S = 180.0  # browsers let a hidden tab look once a minute
_KEY = re.compile(r"[0-9a-f]{32}")
Prints = Callable[[Pair], Mapping[Side, str | None]]


class Talks:
    """Finds a tab's conversation by its key, and has its questions answered.

    A conversation is kept as long as the app runs and others do not push it out.

    Args:
        room: Who answers.
        sides: Who may be asked.
        prints: What tells the weights of those who answer, by side.
    """

    def __init__(self, room: ChatRoom, sides: Sides, prints: Prints) -> None:
        self._room = room
        self._sides = sides
        self._prints = prints
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
        self,
        conversation: Conversation,
        question: object,
        settings: Settings,
        *,
        is_blind: bool,
        instead_of: int | None = None,
    ) -> None:
        """Have a question answered by all sides, in a thread.

        Args:
            conversation: Where it is asked.
            question: What a person wrote.
            settings: With what it is asked.
            is_blind: Whether it is voted on before the names are shown.
            instead_of: The turn that was edited: it goes, and all that came after it.

        Raises:
            RequestError: There is nothing to ask, nobody to answer, or an answer on its way.
        """
        text = question.strip() if isinstance(question, str) else ""
        if not text:
            raise RequestError("question", "The question is empty.", "Write one.")
        if len(text) > MOST_QUESTION:
            raise RequestError("question", "The question is too long to send.", "Shorten it.")
        if len(conversation.turns) >= MOST_TURNS:
            raise RequestError("question", f"It has {MOST_TURNS} turns.", "Clear it first.")
        pair = conversation.pair
        models = self._sides.targets(pair)
        blind = is_blind and len(pair.sides) == 2
        names = self._sides.names(pair)
        with self._lock:
            if conversation.is_answering:
                raise _answering()
            turn, messages = conversation.begin(
                *(text, pair.sides, settings, names), is_blind=blind, instead_of=instead_of
            )
            conversation.asker = _asker(conversation, names)
        self._answer(conversation, turn, models, messages)

    def ask_again(
        self, conversation: Conversation, sides: tuple[Side, ...], settings: Settings
    ) -> None:
        """Have the last question answered anew.

        Raises:
            RequestError: There is none, or an answer is on its way, or it would be the same.
        """
        if not conversation.turns:
            raise RequestError("turn", "There is no answer to write anew yet.", "Ask first.")
        last = conversation.turns[-1]
        chosen: tuple[Side, ...] = tuple(side for side in last.order if side in sides) or last.order
        if last.is_blind:
            chosen = last.order
        models = self._sides.targets(conversation.pair)
        prints = self._prints(conversation.pair)
        with self._lock:
            if conversation.is_answering:
                raise _answering()
            if _would_be_the_same(last, chosen, settings, prints):
                what = "At temperature 0 the same answer would come again."
                raise RequestError("temperature", what, "Raise the temperature under Settings.")
            turn, messages = conversation.begin_again(chosen, settings)
            conversation.asker = _asker(conversation, last.names)
        self._answer(conversation, turn, models, messages)

    def stop(self, conversation: Conversation) -> None:
        """End the answer of this conversation, and no other."""
        if conversation.is_answering and conversation.asker is not None:
            self._room.stop(conversation.asker)

    def _answer(
        self, conversation: Conversation, turn: Turn, models: Models, messages: Messages
    ) -> None:
        work = (conversation, turn, models, messages)
        threading.Thread(target=self._work, args=work, name="answer", daemon=True).start()

    def _work(
        self, conversation: Conversation, turn: Turn, models: Models, messages: Messages
    ) -> None:
        problem = "The answer ended unexpectedly."
        settings, asker = turn.asked[next(iter(messages))], conversation.asker
        assert asker is not None, "whoever begins a turn says who asks"
        prints: Mapping[Side, str | None] | None = None
        try:
            with closing(self._room.ask(models, messages, settings, asker)) as answers:
                for answer in answers:
                    if prints is None and answer.replies:
                        prints = self._prints(conversation.pair)
                    conversation.update(turn, answer.signed(prints or {}), _loading(answer, turn))
                    self._stop_if_unseen(conversation, turn, asker)
            problem = ""
        finally:
            conversation.finish(turn, problem)

    def _stop_if_unseen(self, conversation: Conversation, turn: Turn, asker: Asker) -> None:
        unseen = time.monotonic() - conversation.seen
        if unseen > UNSEEN_S and not asker.is_stopped:
            turn.ended = f"Stopped: the page was left for {duration(unseen)}."
            self._room.stop(asker)


def _asker(conversation: Conversation, names: Mapping[Side, str]) -> Asker:
    return Asker(conversation, " and ".join(names.values()))


def _answering() -> RequestError:
    return RequestError("question", "An answer is being given.", "Wait for it, or stop it.")


def _would_be_the_same(
    turn: Turn,
    sides: tuple[Side, ...],
    settings: Settings,
    prints: Mapping[Side, str | None],
) -> bool:
    """Whether the likeliest words would be taken again, by the same weights and to the same end."""
    if settings.temperature > 0:
        return False
    for side in sides:
        reply = turn.replies.get(side, Reply())
        is_same = reply.fingerprint == prints.get(side)
        if not reply.is_done or reply.stopped == "stop" or not is_same:
            return False
    return all(turn.asked[side].with_seed(settings.seed) == settings for side in sides)


def _loading(answer: Answer, turn: Turn) -> str:
    if answer.waiting:
        return answer.waiting
    if answer.fetching is not None:
        # Which one it is, or how large, tells who is not there yet.
        is_open = not turn.is_hidden
        return fetching_line(
            turn.names[answer.fetching] if is_open else "the other model",
            answer.expected_s if is_open else None,
        )
    if answer.loading_s is None:
        return ""
    return loading_line(answer.loading_s, answer.expected_s)
