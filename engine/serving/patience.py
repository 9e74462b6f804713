"""How long an address is told to wait after wrong tokens."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

FREE = 8  # wrong tokens without a wait: people paste the wrong one
FIRST_S = 1.0
LONGEST_S = 60.0
MOST_ADDRESSES = 1024
_NETWORK_BITS = 64  # of IPv6, that one household or one attacker has whole


@dataclass
class _Tries:
    wrong: int
    until: float


class Patience:
    """Counts wrong tokens by address. The wait doubles from one second up to a minute.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until a wrong token of an address counts again; 0 for now."""
        tries = self._tries.get(_network(address))
        return max(0.0, tries.until - self._clock()) if tries else 0.0

    def wrong(self, address: str) -> None:
        """An address has shown a wrong token."""
        network = _network(address)
        tries = self._tries.pop(network, None) or _Tries(0, 0.0)
        tries.wrong += 1
        if tries.wrong >= FREE:
            doublings = min(tries.wrong - FREE, 10)
            tries.until = self._clock() + min(LONGEST_S, FIRST_S * 2.0**doublings)
        self._tries[network] = tries  # the newest is last
        if len(self._tries) > MOST_ADDRESSES:
            self._tries.popitem(last=False)

    def right(self, address: str) -> None:
        """An address has shown the right token: what was wrong before is forgotten."""
        self._tries.pop(_network(address), None)

    def __len__(self) -> int:
        return len(self._tries)


def _network(address: str) -> str:
    """What counts as one place.

    >>> _network("192.0.2.7"), _network("::ffff:192.0.2.7"), _network("2001:db8::1:2")
    ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _NETWORK_BITS), strict=False))
    return str(found)
