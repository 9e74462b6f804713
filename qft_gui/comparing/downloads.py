"""Models that would have to be downloaded to answer: none is before a person said so."""

from __future__ import annotations

from dataclasses import dataclass

from engine.contract.bundled import catalogue
from engine.contract.errors import RequestError
from engine.contract.hub_cache import is_offline
from qft_gui.comparing.pair import Pair
from qft_gui.comparing.sides import Sides
from qft_gui.view.numbers import gib

_BYTES_PER_WEIGHT = 2  # published models are in 16 bits, but for the oldest small ones
_OFFLINE = "The app is offline: start it without --offline, or choose another model."


@dataclass(frozen=True)
class Wanted:
    """A hub model that is not on this computer, of a commit or the newest one."""

    hub_id: str
    revision: str | None

    @property
    def words(self) -> str:
        """Its name and its size, as far as that is known."""
        for entry in catalogue().values():
            if entry.hub_id == self.hub_id:
                size = gib(_BYTES_PER_WEIGHT * entry.num_parameters)
                return f"{self.hub_id} (about {size} GiB in 16 bits)"
        return f"{self.hub_id} (its size is not known here; see its page on the hub)"


class Downloads:
    """Which models may be downloaded, as long as the app runs.

    Args:
        sides: Who can be asked.
    """

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._allowed: set[Wanted] = set()

    def wanted(self, pair: Pair) -> list[Wanted]:
        """What a pair needs that is not here and that nobody has allowed yet."""
        found: list[Wanted] = []
        for value in (one for one in pair.values.values() if one):
            try:
                made = self._sides.made_of(value)
            except RequestError:  # whoever asks it is told
                continue
            if made.folder is None and made.model.hub_id is not None:
                found.append(Wanted(made.model.hub_id, made.revision))
        return [one for one in dict.fromkeys(found) if one not in self._allowed]

    def frame(self, pair: Pair) -> dict[str, str | bool] | None:
        """What the page asks before a download; None where there is nothing to ask."""
        wanted = self.wanted(pair)
        if not wanted:
            return None
        if is_offline():
            return {"line": f"{_missing(wanted)} {_OFFLINE}", "can": False}
        return {"line": f"{_missing(wanted)} To answer, that is downloaded first.", "can": True}

    def allow(self, pair: Pair) -> None:
        """A person agreed.

        Raises:
            RequestError: The app is offline.
        """
        if is_offline():
            self.refuse(pair)
        self._allowed.update(self.wanted(pair))

    def refuse(self, pair: Pair) -> None:
        """Nothing is loaded that would be downloaded first without consent.

        Raises:
            RequestError: Something would be.
        """
        if self.wanted(pair):
            # Which one it is the page says all the time.
            if is_offline():
                what = "The app is offline, so that model cannot be downloaded."
                raise RequestError("model", what, "Choose another one.")
            what = "A model has to be downloaded first."
            raise RequestError("model", what, "Allow the download, or choose another model.")


def _missing(wanted: list[Wanted]) -> str:
    what = " and ".join(one.words for one in wanted)
    return f"Not on this computer: {what}."
