"""Which names the server answers to.

A web page may point a name of its own at 127.0.0.1 (DNS rebinding) and so read what is served there; its requests still
carry that name in ``Host``. So a server on loopback answers to loopback's names only, others to those they are told.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator

from manent.adapters.http.errors import RequestRefused

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared with, not listened on)
ANY = "*"
LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
PATTERN = re.compile(rf"(?:\*\.)?{LABEL}(?:\.{LABEL})*", re.IGNORECASE)


class HostNames:
    """Names, addresses, and patterns: ``*.example.com`` is every name below example.com, ``*`` any name at all."""

    def __init__(self, patterns: Iterable[str] = LOOPBACK_NAMES) -> None:
        """Take ``patterns``.

        Raises:
            ValueError: one is neither a name, an address nor a pattern.
        """
        given = {_checked(pattern) for pattern in patterns}
        self._names = frozenset(name for name in given if ANY not in name)
        self._ends = tuple(sorted(name.removeprefix(ANY) for name in given if name.startswith("*.")))
        self._any = ANY in given

    def __contains__(self, name: str) -> bool:
        name = name.lower().removesuffix(".")
        return self._any or name in self._names or (name.endswith(self._ends) and not name.startswith("."))

    def __iter__(self) -> Iterator[str]:
        return iter([*sorted(self._names), *(f"*{end}" for end in self._ends), *([ANY] if self._any else [])])


def name_of(host: str) -> str:
    """The name, or address, in a Host header: without the port, and without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] or host


def check_host(host: str, names: HostNames) -> None:
    """Refuse a request for a name that is not one of ``names``; the port does not matter.

    Raises:
        RequestRefused: another name, or none (RFC 9112, 3.2: a request without Host is bad).
    """
    if not host or name_of(host) not in names:
        raise RequestRefused(
            "unknown_host", f"this server does not answer to Host {host[:200]!r}; use {', '.join(names)}"
        )


def _checked(pattern: str) -> str:
    name = pattern.lower()
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        if name == ANY or PATTERN.fullmatch(name):
            return name
    raise ValueError(f"{pattern!r} is no name of a host; write example.com, *.example.com, an address, or *")


LOOPBACK = HostNames()
