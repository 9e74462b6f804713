"""Lists of prompts: answered in the background by both sides, then voted on one by one."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from engine.contract.bundled import heldout_path, sample_datasets
from engine.contract.errors import RequestError, RequestErrors
from engine.contract.run_dir import RunDir
from engine.contract.votes import Choice
from qft_gui.answers import SIDES, Reply, Settings, Side
from qft_gui.chat_floor import Asker
from qft_gui.chat_room import ChatRoom, Models
from qft_gui.comparing.ballots import Ballot, Ballots
from qft_gui.comparing.conversation import Messages
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import PromptList, begin_list, newest_list
from qft_gui.comparing.sides import Sides


class Lists:
    """Answers one list at a time, and keeps what comes of it in the run's folder.

    Args:
        room: Who answers.
        sides: Who may be asked.
        ballots: Where votes go.
    """

    def __init__(self, room: ChatRoom, sides: Sides, ballots: Ballots) -> None:
        self._room = room
        self._sides = sides
        self._ballots = ballots
        self._lock = threading.Lock()
        self._known: dict[str, PromptList] = {}
        self._voting = threading.Lock()
        self._at_work: PromptList | None = None
        self._asker: Asker | None = None
        self._is_cancelled = False
        self._plan = ""
        self.problem = ""

    def of(self, pair: Pair) -> PromptList | None:
        """The newest list of the run that a comparison belongs to."""
        run = self._sides.ballot_run(pair)
        if run is None:
            return None
        with self._lock:
            known = self._known.get(run.name)
            if known is None or not known.path.exists():
                known = newest_list(run.path)
                if known is None:
                    self._known.pop(run.name, None)
                    return None
                self._known[run.name] = known
            return known

    def is_at_work(self, one: PromptList | None) -> bool:
        """Whether this list is being answered now."""
        return one is not None and one is self._at_work

    def begin(self, pair: Pair, prompts: tuple[str, ...], settings: Settings) -> PromptList:
        """Make a list and have it answered.

        Raises:
            RequestError: There is nothing to ask, no run to keep it in, or a list at work.
        """
        run = self._sides.ballot_run(pair)
        why_not = self._ballots.why_not(pair)
        if run is None or why_not:
            raise RequestError("prompts", why_not, "Choose a run's result on one side.")
        names, models = self._sides.names(pair), self._sides.targets(pair)
        with self._lock:
            self._refuse_another()
            found = begin_list(run.path, pair, names, settings, prompts)
            self._known[run.name] = found
            self._start(found, models)
        return found

    def go_on(self, one: PromptList) -> None:
        """Answer what is still missing in a list, in a thread.

        Raises:
            RequestError: Another one is at work, or one side is gone.
        """
        models = self._sides.targets(one.pair)
        with self._lock:
            self._refuse_another()
            self._start(one, models)

    def _refuse_another(self) -> None:
        if self._at_work is not None:
            what = "A list is being answered."
            raise RequestError("prompts", what, "Wait for it, or cancel it.")

    def _start(self, one: PromptList, models: Models) -> None:
        self._at_work, self._is_cancelled, self.problem = one, False, ""
        work = (one, models)
        threading.Thread(target=self._work, args=work, name="prompt-list", daemon=True).start()

    def cancel(self, one: PromptList | None) -> None:
        """Answer no more of a list; what is answered stays, and what others ask goes on."""
        with self._lock:
            if one is None or one is not self._at_work:
                return
            self._is_cancelled = True
            asker = self._asker
        if asker is not None:
            self._room.stop(asker)

    def vote(self, one: PromptList, number: int, choice: Choice) -> None:
        """Take a vote on a prompt, once.

        Raises:
            RequestError: There is nothing to vote on, it was voted on, or the disk refuses.
        """
        if not 0 <= number < len(one.prompts) or not one.is_answered(number):
            raise RequestError("votes", "There is nothing to vote on.", "Look at the next prompt.")
        ballot = _ballot_of(one, number)
        with self._voting:
            # The run's votes are what counts: the list may have lost its own line of one.
            before = one.votes.get(number) or self._ballots.cast_before(ballot)
            if before is None:
                self._ballots.cast(ballot, choice)
            if number not in one.votes:
                self._note_vote(one, number, before or choice)
        if before is not None:
            what = f"Prompt {number + 1} was voted on before; that vote counts."
            raise RequestError("votes", what, "Look at the next one.")

    @staticmethod
    def _note_vote(one: PromptList, number: int, choice: Choice) -> None:
        try:
            one.add_vote(number, choice)
        except OSError as error:
            reason = error.strerror or "it fails"
            raise RequestError("votes", f"{one.path} cannot be written ({reason}).") from error

    def _work(self, one: PromptList, models: Models) -> None:
        try:
            wanted = list(one.missing(side_by_side=True))
            while wanted and (reply := self._reply(one, *wanted[0], models)) is not None:
                one.add_reply(*wanted[0], reply)
                # Models that take turns in memory are not exchanged for each prompt.
                wanted = list(one.missing(side_by_side=self._plan != "swapped"))
        except OSError as error:
            self.problem = f"{one.path} cannot be written ({error.strerror or 'it fails'})."
        finally:
            self._at_work = None

    def _reply(self, one: PromptList, number: int, side: Side, models: Models) -> Reply | None:
        """One answer, once no tab waits for one; None if it was cancelled or failed."""
        asked: Messages = {side: [{"role": "user", "content": one.prompts[number]}]}
        asker = Asker(one, " and ".join(one.names.values()), lambda: _words(one), gives_way=True)
        with self._lock:
            if self._is_cancelled:
                return None
            self._asker = asker
        last, prints = Reply(), None
        with closing(self._room.ask(models, asked, one.settings, asker)) as answers:
            for answer in answers:
                if prints is None and answer.replies:
                    prints = self._ballots.prints(one.pair)
                self.problem = answer.problem
                last = answer.replies.get(side, last)
                self._plan = answer.proof.plan if answer.proof else self._plan
        if self._is_cancelled:
            self.problem = ""
        if self._is_cancelled or self.problem or not last.is_done:
            return None
        return replace(last, fingerprint=(prints or {}).get(side))


def _words(one: PromptList) -> str:
    answers = f"{len(one.replies)} of {len(SIDES) * len(one.prompts)} answers"
    return f"A list of prompts is being answered, {answers} so far; questions come in between."


def _ballot_of(one: PromptList, number: int) -> Ballot:
    return Ballot(
        pair=one.pair,
        names=one.names,
        order=one.turn(number).order,
        replies={side: one.replies[number, side] for side in SIDES},
        earlier=dict.fromkeys(SIDES, ()),
        questions=(one.prompts[number],),
        settings=one.settings,
        id=f"{one.id}/{number}",
    )


def sample_prompts(run: RunDir | None) -> tuple[str, tuple[str, ...]] | None:
    """The held-out prompts of the bundled dataset that a run trained on, and its title."""
    if run is None:
        return None
    try:
        name = run.spec().data.source
    except (RequestError, RequestErrors):
        return None
    sample = sample_datasets().get(name)
    return (sample.title, _heldout(heldout_path(name))) if sample else None


def _heldout(path: Path) -> tuple[str, ...]:
    with path.open(encoding="utf-8") as lines:
        return tuple(str(json.loads(line)["prompt"]) for line in lines if line.strip())
