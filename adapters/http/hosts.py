"""Which names the server answers to.

A web page may point a name of its own at 127.0.0.1 (DNS rebinding) and so read what is served there; its requests still
carry that name in ``Host``. So a server on loopback answers to loopback's names only.
"""

from __future__ import annotations

from collections.abc import Collection

from sanic import Request

from manent.adapters.http.errors import RequestRefused

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def check_host(request: Request, names: Collection[str]) -> None:
    """Refuse a request for a name that is not one of ``names``; the port does not matter.

    Raises:
        RequestRefused: another name, or none (RFC 9112, 3.2: a request without Host is bad).
    """
    given = request.headers.get("host", "")
    host = given[1:].partition("]")[0] if given.startswith("[") else given.rpartition(":")[0] or given
    if host.lower() not in names:
        raise RequestRefused(
            "unknown_host", f"this server does not answer to Host {given[:200]!r}; use {', '.join(sorted(names))}"
        )
