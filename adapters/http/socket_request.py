"""A message of a WebSocket as the request that it stands for, so that everything holds that holds for requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from sanic.compat import Header

from manent.adapters.http.principal import credentials_among
from manent.adapters.http.request import CORRELATION_HEADERS, HttpRequest
from manent.adapters.http.route import Route, openapi_path

INHERITED = ("host", "origin", "authorization", "x-api-key", "traceparent", "x-access-purpose", *CORRELATION_HEADERS)
"""Headers of the opening handshake that count for every message: who asks, and what it belongs to."""


class SocketRequest(HttpRequest):
    """A request that came as a message of a WebSocket.

    It has the route of the HTTP request that it stands for: the same middleware passes it, and the same metrics count
    it. Who asks stands in the opening handshake, and is judged anew for each message.
    """

    route_path: str

    @classmethod
    def of(cls, upgrade: HttpRequest, route: Route, path: str, headers: Mapping[str, str | None]) -> Self:
        """The request for ``path``, which ``route`` serves, with ``headers``; on the connection of ``upgrade``."""
        kept = [(name, value) for name in INHERITED for value in upgrade.headers.getall(name, [])]
        offered = credentials_among(upgrade.headers.getall("sec-websocket-protocol", []))
        kept += [("authorization", f"Bearer {credential}") for credential in offered]
        given = [(name, value) for name, value in headers.items() if value is not None]
        request = cls(
            url_bytes=path.encode("ascii"),
            headers=Header([*kept, ("content-type", "application/json"), *given]),
            version=upgrade.version,
            method=route.method,
            transport=upgrade.transport,
            app=upgrade.app,
        )
        request.conn_info = upgrade.conn_info
        request.route_path = openapi_path(route.paths[0])
        request._origin = upgrade.origin
        return request

    @property
    def template(self) -> str:
        """The path of the route that it stands for."""
        return self.route_path

    def watch_connection(self) -> None:
        """The socket sees to that."""
