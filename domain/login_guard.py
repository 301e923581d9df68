"""Failed logins, counted by address, within a bound of memory. Knows no clock: moments come in as seconds."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from manent.domain.access_errors import TooManyFailedLogins

FAILURES_MAX = 20
WINDOW_S = 60.0
ADDRESSES_MAX = 4096
IPV6_NETWORK_BITS = 64


class LoginGuard:
    """Counts the failures of each address in windows. It refuses guesses, and never a credential that holds.

    Attributes:
        failures: all failures so far.
    """

    def __init__(self, *, failures_max: int = FAILURES_MAX, window_s: float = WINDOW_S) -> None:
        self.failures = 0
        self._failures_max = failures_max
        self._window_s = window_s
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, address: str, *, now_s: float) -> None:
        """Count a failure.

        Raises:
            TooManyFailedLogins: the address has failed so often within the window that it hears nothing else.
        """
        self.failures += 1
        network = network_of(address)
        begun_s, count = self._windows.pop(network, (now_s, 0))
        if now_s - begun_s >= self._window_s:
            begun_s, count = now_s, 0
        count += 1
        self._windows[network] = (begun_s, count)
        while len(self._windows) > ADDRESSES_MAX:
            self._windows.popitem(last=False)
        if count > self._failures_max:
            raise TooManyFailedLogins(
                f"{self._failures_max} credentials from this address did not hold within {self._window_s:g} s; try "
                "again later, with one that does",
                retry_after_s=max(1.0, begun_s + self._window_s - now_s),
            )


def network_of(address: str) -> str:
    """What counts as one address: with IPv6, a whole network is one subscriber's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))
    return str(parsed)
