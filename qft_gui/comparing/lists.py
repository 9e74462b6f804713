"""Lists of prompts: answered in the background by both sides, then voted on one by one."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from pathlib import Path

from engine.contract.bundled import heldout_path, sample_datasets
from engine.contract.errors import RequestError, RequestErrors
from engine.contract.run_dir import RunDir
from engine.contract.votes import Choice
from qft_gui.answers import SIDES, Reply, Settings, Side
from qft_gui.chat_room import BUSY, ChatRoom, Models
from qft_gui.comparing.ballots import Ballot, Ballots
from qft_gui.comparing.conversation import Messages
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.prompt_list import PromptList, begin_list, newest_list
from qft_gui.comparing.sides import Sides

PATIENCE_S = 1.0


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
        self._at_work: PromptList | None = None
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
        if self._at_work is not None:
            raise _busy()
        found = begin_list(run.path, pair, self._sides.names(pair), settings, prompts)
        with self._lock:
            self._known[run.name] = found
        self.go_on(found)
        return found

    def go_on(self, one: PromptList) -> None:
        """Answer what is still missing in a list, in a thread.

        Raises:
            RequestError: Another one is at work, or one side is gone.
        """
        models = self._sides.targets(one.pair)
        with self._lock:
            if self._at_work is not None:
                raise _busy()
            self._at_work, self._is_cancelled, self.problem = one, False, ""
        work = (one, models)
        threading.Thread(target=self._work, args=work, name="prompt-list", daemon=True).start()

    def cancel(self) -> None:
        """Answer no more; what is answered stays."""
        if self._at_work is not None:
            self._is_cancelled = True
            self._room.stop()

    def vote(self, one: PromptList, number: int, choice: Choice) -> None:
        """Take a vote on a prompt, once.

        Raises:
            RequestError: There is nothing to vote on, or the disk refuses.
        """
        if not 0 <= number < len(one.prompts) or not one.is_answered(number) or number in one.votes:
            raise RequestError("votes", "There is nothing to vote on.", "Look at the next prompt.")
        turn = one.turn(number)
        self._ballots.cast(
            Ballot(
                pair=one.pair,
                order=turn.order,
                replies={side: one.replies[number, side].text for side in SIDES},
                earlier=dict.fromkeys(SIDES, ()),
                questions=(one.prompts[number],),
                settings=one.settings,
                seed=one.settings.seed,
            ),
            choice,
        )
        try:
            one.add_vote(number, choice)
        except OSError as error:
            reason = error.strerror or "it fails"
            raise RequestError("votes", f"{one.path} cannot be written ({reason}).") from error

    def _work(self, one: PromptList, models: Models) -> None:
        try:
            # Models that take turns in memory are not exchanged for each prompt.
            takes_turns = self._takes_turns(one, models)
            for number, side in one.missing(side_by_side=not takes_turns):
                if self._is_cancelled:
                    return
                reply = self._reply(one, number, side, models)
                if self._is_cancelled or reply is None:
                    return
                one.add_reply(number, side, reply)
        except OSError as error:
            self.problem = f"{one.path} cannot be written ({error.strerror or 'it fails'})."
        finally:
            self._at_work = None

    def _takes_turns(self, one: PromptList, models: Models) -> bool:
        first = next(one.missing(side_by_side=True), None)
        if first is None:
            return False
        reply = self._reply(one, *first, models)
        if reply is not None and not self._is_cancelled:
            one.add_reply(*first, reply)
        return self._plan == "swapped"

    def _reply(self, one: PromptList, number: int, side: Side, models: Models) -> Reply | None:
        """One answer; waits while a tab is being answered."""
        asked: Messages = {side: [{"role": "user", "content": one.prompts[number]}]}
        last: Reply | None = None
        while not self._is_cancelled:
            problem = ""
            with closing(self._room.ask(models, asked, one.settings)) as answers:
                for answer in answers:
                    problem = answer.problem
                    last = answer.replies.get(side, last)
                    self._plan = answer.proof.plan if answer.proof else self._plan
            if problem != BUSY:
                self.problem = problem
                return last if last is not None and last.is_done and not problem else None
            time.sleep(PATIENCE_S)
        return None


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


def _busy() -> RequestError:
    return RequestError("prompts", "A list is being answered.", "Wait for it, or cancel it.")
