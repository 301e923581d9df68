"""Where a request comes from: its connection or, behind proxies that are trusted, what they say (RFC 7239).

A header is a list to which each proxy appends whom it heard from. What a client writes itself stands to the left of
that, so the list is read from the right, for as long as the one who wrote an entry is trusted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

UNIX = "unix"
X_FORWARDED = "x-forwarded-for"
FORWARDED = "forwarded"
HOPS_MAX = 32
SCHEMES = frozenset({"http", "https"})
# RFC 7239, 4: token "=" (token / quoted-string), joined by ";".
PAIR = re.compile(r'\s*([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s";,]+))\s*(?:;|$)', re.IGNORECASE)

HeaderLines = Callable[[str], Sequence[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from and how it got to the first of our proxies; ``address`` is None on a Unix socket."""

    address: str | None
    scheme: str
    host: str


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one proxy said of whom it heard from."""

    address: Address | None
    scheme: str | None = None
    host: str | None = None


class TrustedProxies:
    """The proxies whose word is taken, and the one header that they write."""

    def __init__(self, networks: Iterable[str] = (), *, header: str = X_FORWARDED) -> None:
        """Trust the addresses of ``networks``, and with ``unix`` whoever connects to the Unix socket.

        Raises:
            ValueError: one is no address and no network.
        """
        given = list(networks)
        self._unix = UNIX in given
        self._networks = [_network(one) for one in given if one != UNIX]
        self._header = header

    def origin_of(self, peer: str | None, lines: HeaderLines, *, scheme: str, host: str) -> Origin:
        """Where a request comes from that ``peer`` sent (None: the Unix socket); ``lines`` are those of a header."""
        if not self._trusts(peer):
            return Origin(peer, scheme, host)
        hops = _forwarded(lines) if self._header == FORWARDED else _x_forwarded(lines)
        address = peer
        told = _Hop(None)
        for hop in hops[:HOPS_MAX]:
            told = _Hop(None, hop.scheme or told.scheme, hop.host or told.host)
            if hop.address is None:  # not an address: who said so is the last one that is known
                break
            address = str(hop.address)
            if not self._trusts(address):
                break
        return Origin(address, told.scheme or scheme, told.host or host)

    def _trusts(self, peer: str | None) -> bool:
        if peer is None:
            return self._unix
        if not self._networks:
            return False
        ip = _address(peer)
        return ip is not None and any(ip in network for network in self._networks)


NO_PROXIES = TrustedProxies()


def _x_forwarded(lines: HeaderLines) -> list[_Hop]:
    """The hops of X-Forwarded-For from the right; -Proto and -Host may have one entry for each hop, or one for all."""
    hops = [_Hop(_address(entry)) for entry in _entries(lines, X_FORWARDED)]
    schemes = [scheme.lower() for scheme in _entries(lines, "x-forwarded-proto")]
    hosts = _entries(lines, "x-forwarded-host")
    return [
        _Hop(hop.address, _known_scheme(_nth(schemes, number)), _nth(hosts, number))
        for number, hop in enumerate(hops or [_Hop(None)])
    ]


def _entries(lines: HeaderLines, name: str) -> list[str]:
    joined = ",".join(lines(name))
    return [entry.strip() for entry in joined.split(",")][::-1][:HOPS_MAX] if joined else []


def _nth(entries: Sequence[str], number: int) -> str | None:
    return entries[min(number, len(entries) - 1)] or None if entries else None


def _forwarded(lines: HeaderLines) -> list[_Hop]:
    """The elements of Forwarded from the right, up to the first that is malformed."""
    hops = []
    for element in _elements(",".join(lines(FORWARDED)))[::-1][:HOPS_MAX]:
        pairs = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or token for name, quoted, token in PAIR.findall(element)
        }
        scheme = _known_scheme(pairs.get("proto", "").lower())
        hops.append(_Hop(_address(pairs.get("for", "")), scheme, pairs.get("host")))
    return hops


def _elements(text: str) -> list[str]:
    """The elements of a list, commas in quoted strings left alone."""
    elements, start, quoted, escaped = [], 0, False, False
    for index, char in enumerate(text):
        if escaped or (quoted and char == "\\"):
            escaped = not escaped
        elif char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            elements.append(text[start:index])
            start = index + 1
    return [element for element in [*elements, text[start:]] if element.strip()]


def _known_scheme(scheme: str | None) -> str | None:
    return scheme if scheme in SCHEMES else None


def _address(text: str) -> Address | None:
    """An address, with or without a port, in brackets or not; IPv4 in IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no address and no network ({error}); write 10.0.0.7, 10.0.0.0/8, ::1, or {UNIX}"
        ) from None
