"""What the Compare page may ask for: one request in, one answer out, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from engine.contract.errors import RequestError, RequestErrors, mistakes
from engine.contract.votes import Choice
from qft_gui.answers import Settings, Side
from qft_gui.chat_client import ChatError
from qft_gui.chat_room import ChatRoom
from qft_gui.comparing.ballots import Ballots, ballot_of
from qft_gui.comparing.conversation import Conversation, Messages
from qft_gui.comparing.downloads import Downloads
from qft_gui.comparing.errands import Errands, Kind, held_out_questions
from qft_gui.comparing.frames import Frames
from qft_gui.comparing.lists import Lists, sample_prompts
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import MOST_PROMPTS
from qft_gui.comparing.sides import Sides, as_choice
from qft_gui.comparing.talks import Talks
from qft_gui.comparing.transcripts import conversation_file, votes_file
from qft_gui.service import Service
from qft_gui.view.sentences import refusal, sentence

Request = Mapping[str, Any]
Answer = dict[str, Any]
_SIDES: dict[str, tuple[Side, ...]] = {"a": ("a",), "b": ("b",), "both": ("a", "b")}


class CompareDesk:
    """Does what the page's buttons say, and tells the page what it does not know yet.

    Args:
        service: The runs.
        room: The chat.
        is_for_others: Whether other computers can reach the page: then it writes to no folder that
            was typed.
    """

    def __init__(self, service: Service, room: ChatRoom, *, is_for_others: bool = False) -> None:
        self._room = room
        self._sides = Sides(service)
        self._downloads = Downloads(self._sides)
        self._ballots = Ballots(service, self._sides)
        self._talks = Talks(room, self._sides, self._ballots.prints)
        self._lists = Lists(room, self._sides, self._ballots)
        self._errands = Errands(service.runs, is_for_others=is_for_others)
        self._frames = Frames(
            *(service, room, self._sides, self._ballots, self._lists, self._errands),
            self._downloads,
        )
        self._acts: dict[str, Callable[[Conversation, Request], Answer | None]] = {
            "look": lambda talk, wish: None,
            "show": self._show,
            "choose": self._choose,
            "allow": lambda talk, wish: self._downloads.allow(talk.pair),
            "ask": self._ask,
            "again": self._again,
            "stop": lambda talk, wish: self._talks.stop(talk),
            "clear": lambda talk, wish: talk.clear(),
            "bring_back": lambda talk, wish: talk.bring_back(),
            "vote": self._vote,
            "reveal": lambda talk, wish: talk.reveal(_whole(wish.get("turn"))),
            "unload": self._unload,
            "prompt": self._prompt,
            "list": self._begin_list,
            "list_go_on": self._go_on,
            "list_cancel": lambda talk, wish: self._lists.cancel(self._lists.of(talk.pair)),
            "list_vote": self._vote_in_list,
            "sample": self._sample,
            "judge": self._judge,
            "export": self._export,
            "cancel": self._cancel,
            "download": self._download,
        }

    def answer(self, request: object) -> Answer:
        """One request of a page's.

        Returns:
            `ok`, and what changed since the version that the page has; with `why` where something
            is in the way.
        """
        wish = cast("Request", request) if isinstance(request, dict) else {}
        try:
            talk = self._talks.of(wish.get("key"))
        except RequestError as error:
            return {"ok": False, "why": sentence(error)}
        told: Answer = {}
        act = self._acts.get(str(wish.get("op")))
        if act is None:
            return {"ok": False, "why": "The page is out of date. Load it again."}
        try:
            self._greet(talk)
            told = act(talk, wish) or {}
        except (RequestError, RequestErrors) as error:
            told = {"why": sentence(mistakes(error)[0])}
        except ChatError as error:
            told = {"why": refusal(error)}
        except FileNotFoundError:
            told = {"why": "This run was deleted."}
        return {"ok": True, **self._frames.since(talk, wish), **told}

    def _greet(self, talk: Conversation) -> None:
        """The first time: the newest result beside its original."""
        if talk.pair == Pair():
            talk.choose(self._frames.first_pair())

    def _show(self, talk: Conversation, wish: Request) -> None:
        usual = self._sides.usual(as_choice(wish.get("run")))
        if usual.right:
            talk.choose(usual if wish.get("mode") != "alone" else Pair("", usual.right))

    def _choose(self, talk: Conversation, wish: Request) -> None:
        if talk.is_answering:
            raise RequestError("side", "An answer is being given.", "Stop it before you choose.")
        pair = Pair(as_choice(wish.get("left")), as_choice(wish.get("right")))
        self._sides.targets(pair)
        talk.choose(pair)

    def _ask(self, talk: Conversation, wish: Request) -> None:
        settings = _settings(wish)
        is_blind = wish.get("blind") is True
        if is_blind and (why := self._ballots.why_not(talk.pair)):
            raise RequestError("blind", why, "Switch the blind vote off.")
        self._downloads.refuse(talk.pair)
        edited = wish.get("instead_of")
        self._talks.ask(
            *(talk, wish.get("question"), settings),
            is_blind=is_blind,
            instead_of=None if edited is None else _whole(edited),
        )

    def _again(self, talk: Conversation, wish: Request) -> None:
        self._downloads.refuse(talk.pair)
        sides = _SIDES.get(str(wish.get("side")), ("a", "b"))
        self._talks.ask_again(talk, sides, _settings(wish))

    def _vote(self, talk: Conversation, wish: Request) -> None:
        choice = _choice(wish)
        turn = talk.vote(_whole(wish.get("turn")), choice)
        if turn is None:
            return
        try:
            self._ballots.cast(ballot_of(talk, turn), choice)
        except RequestError:
            talk.take_back_vote(turn)
            raise

    def _unload(self, talk: Conversation, wish: Request) -> Answer:
        if not self._room.unload():
            raise RequestError("chat", self._room.busy or "An answer is being given.")
        talk.proof = None
        return {"said": "The models left memory."}

    def _prompt(self, talk: Conversation, wish: Request) -> Answer:
        settings = _settings(wish)
        known: Messages = {}
        for side in talk.pair.sides:
            messages = talk.prompt_messages(side)
            if messages is not None:
                known[side] = messages
        if not known or self._room.loaded != self._sides.targets(talk.pair):
            raise RequestError("prompt", "No question was asked yet.", "Ask one first.")
        if any(turn.is_hidden for turn in talk.turns):
            # Two templates would tell who is who.
            raise RequestError("prompt", "A vote is open.", "Vote, or show who they were.")
        found = self._room.prompts(known, settings)
        names = self._sides.names(talk.pair)
        return {
            "prompts": [
                {
                    "name": names[side],
                    "text": one["text"],
                    "line": f"{one['num_tokens']:,} tokens"
                    + (f" of {one['context']:,} that it reads" if one.get("context") else ""),
                }
                for side, one in found.items()
                if side in names
            ]
        }

    def _begin_list(self, talk: Conversation, wish: Request) -> None:
        text = wish.get("prompts")
        self._downloads.refuse(talk.pair)
        lines = text.splitlines() if isinstance(text, str) else []
        self._lists.begin(talk.pair, tuple(lines), _settings(wish))

    def _go_on(self, talk: Conversation, wish: Request) -> None:
        found = self._lists.of(talk.pair)
        if found is not None:
            self._downloads.refuse(found.pair)
            self._lists.go_on(found)

    def _vote_in_list(self, talk: Conversation, wish: Request) -> None:
        found = self._lists.of(talk.pair)
        if found is None or found.id != wish.get("list"):
            raise RequestError("votes", "There is another list by now.", "Vote on that.")
        self._lists.vote(found, _whole(wish.get("prompt")), _choice(wish))

    def _sample(self, talk: Conversation, wish: Request) -> Answer:
        """Held-out prompts: those of a bundled dataset at once, others once they are found."""
        run = self._sides.ballot_run(talk.pair)
        found = sample_prompts(run)
        if found:
            return {"prompt_text": "\n".join(found[1])}
        if run is None:
            raise RequestError("run", "Neither side is a run.", "Choose a run's result.")
        if wish.get("found") is not True:
            self._errands.look_into_data(run.name, run.spec().as_json())
            return {}
        errand = self._errands.of("check", run.name)
        asked = held_out_questions(errand)[:MOST_PROMPTS]
        if errand is not None and errand.is_over and not asked:
            raise errand.error or RequestError(
                "prompts", "Nothing that was held out asks a question.", "Write the prompts."
            )
        return {"prompt_text": "\n".join(asked)}

    def _judge(self, talk: Conversation, wish: Request) -> None:
        self._downloads.refuse(talk.pair)
        self._errands.judge(self._subject(talk), str(wish.get("data") or ""))

    def _export(self, talk: Conversation, wish: Request) -> None:
        self._downloads.refuse(talk.pair)
        form, folder = str(wish.get("form")), str(wish.get("folder") or "")
        self._errands.export(self._subject(talk), form, folder)

    def _cancel(self, talk: Conversation, wish: Request) -> None:
        if wish.get("what") in get_args(Kind):
            self._errands.cancel(wish["what"], self._subject(talk))

    def _subject(self, talk: Conversation) -> str:
        subject = self._sides.subject(talk.pair)
        if subject is None:
            what = "Neither side is the result or a checkpoint of a run."
            raise RequestError("run", what, "Choose one on the right.")
        return subject

    def _download(self, talk: Conversation, wish: Request) -> Answer:
        form = "csv" if wish.get("form") == "csv" else "jsonl"
        if wish.get("what") == "votes":
            text = votes_file(self._ballots.votes(talk.pair), form)
            return {"file": {"name": f"votes.{form}", "text": text}}
        return {"file": {"name": f"conversation.{form}", "text": conversation_file(talk, form)}}


def _settings(wish: Request) -> Settings:
    values = wish.get("settings")
    return Settings.of(cast("Request", values) if isinstance(values, dict) else {})


def _choice(wish: Request) -> Choice:
    choice = wish.get("choice")
    if choice not in get_args(Choice):
        raise RequestError("votes", "That is no vote.", "Use one of the four buttons.")
    return cast("Choice", choice)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else -1
