"""Serving an application on a socket, inside a loop that is somebody else's; signals and their order are not ours."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Protocol, cast

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http import Http
from sanic.http.constants import HTTP
from sanic.server import AsyncioServer

from manent.adapters.http.protocol import BoundedHttpProtocol
from manent.adapters.http.request import App

BACKLOG = 1024
HANDSHAKE_S = 10.0
POLL_S = 0.02

_log = logging.getLogger("manent.http")


class _Connection(Protocol):
    """What of Sanic's protocol a shutdown needs."""

    @property
    def http(self) -> object | None: ...
    def close_if_idle(self) -> bool: ...
    def abort(self) -> None: ...


class HttpServer:
    """Life and end of a listening socket: ``start``, ``stop_accepting``, ``close``, in this order, each once."""

    def __init__(self, app: App, sock: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        self._app = app
        self._sock = sock
        self._tls = tls
        self._server: AsyncioServer | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._open_connections())

    async def start(self) -> None:
        """Listen; requests are answered when this returns.

        Raises:
            OSError: the socket cannot listen.
        """
        handshake = {} if self._tls is None else {"ssl_handshake_timeout": HANDSHAKE_S}
        # Sanic would begin to accept before its router is ready.
        server = await self._app.create_server(
            sock=self._sock,
            ssl=self._tls,
            backlog=BACKLOG,
            protocol=BoundedHttpProtocol,
            asyncio_server_kwargs={"start_serving": False, **handshake},
        )
        if server is None:
            raise OSError("Sanic made no server")
        self._app.config.TOUCHUP = _may_touch_up()
        self._app.state.server_info.append(ApplicationServerInfo(settings={"version": HTTP.VERSION_1}))
        await server.startup()  # type: ignore[no-untyped-call]  # Sanic's
        await server.before_start()  # type: ignore[no-untyped-call]  # Sanic's
        self._server = server
        await server.start_serving()  # type: ignore[no-untyped-call]  # Sanic's
        await server.after_start()  # type: ignore[no-untyped-call]  # Sanic's

    def keep_no_connection(self) -> None:
        """Close the idle connections, and every other one behind its answer; new ones have one answer each."""
        self._app.config.KEEP_ALIVE = False
        for connection in self._open_connections():
            if not connection.close_if_idle():
                _close_after_answer(connection)

    async def stop_accepting(self) -> None:
        """Close the listener and the idle connections; what runs goes on, and its connection closes behind it."""
        if self._server is None:
            return
        listener = cast("asyncio.Server | None", self._server.server)
        if listener is not None:
            listener.close()
        self.keep_no_connection()

    async def close(self, deadline_s: float) -> None:
        """Wait for the connections to end, cut those that are left after ``deadline_s``, and forget the application."""
        if self._server is None:
            return
        await self.stop_accepting()
        try:
            async with asyncio.timeout(deadline_s):
                await self._drained()
        except TimeoutError:
            _log.warning("%d connections are cut at the deadline of the shutdown", self.connections)
        for connection in self._open_connections():
            connection.abort()
        # A handler that is cut learns of it as a cancellation, and closes its completion: give it its turn.
        await asyncio.sleep(POLL_S)
        await self._server.before_stop()  # type: ignore[no-untyped-call]  # Sanic's
        await self._server.after_stop()  # type: ignore[no-untyped-call]  # Sanic's
        Sanic.unregister_app(self._app)
        self._server = None

    async def _drained(self) -> None:
        while self._open_connections():
            await asyncio.sleep(POLL_S)
            for connection in self._open_connections():
                connection.close_if_idle()

    def _open_connections(self) -> list[_Connection]:
        if self._server is None:
            return []
        return [cast("_Connection", connection) for connection in self._server.connections]


def _may_touch_up() -> bool:
    """Whether Sanic may recompile its own methods without the signals that nobody listens to.

    It can do so once per process: done again, it would look for the source of what it compiled. It is told of one
    version of HTTP (``server_info``), since it would announce others in an empty alt-svc header otherwise.
    """
    return not getattr(Http, "__touched__", False)


def _close_after_answer(connection: _Connection) -> None:
    http = connection.http
    if http is not None and hasattr(http, "keep_alive"):
        http.keep_alive = False
