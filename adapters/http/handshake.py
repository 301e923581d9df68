"""The opening handshake of a WebSocket, behind the front door: from a request that asks for one to an open one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, InvalidUpgrade, NegotiationError
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.front_door import front_headers
from manent.adapters.http.protocol import BoundedHttpProtocol
from manent.adapters.http.websocket import WebSocket, frame_logger
from manent.domain.errors import ShuttingDown

SUBPROTOCOL = Subprotocol("manent.v1")
ACCEPTED = 101


async def open_websocket(exchange: Exchange) -> WebSocket:
    """Switch the connection of a request to WebSocket. No extension is spoken: what is not packed cannot explode.

    Raises:
        RequestRefused: it does not ask for a WebSocket, or for one of another protocol, or not as RFC 6455 has it.
        ShuttingDown: the server drains.
    """
    request = exchange.request
    if not request.app.config.KEEP_ALIVE:
        raise ShuttingDown("the server shuts down; open the WebSocket at another one")
    frames = ServerProtocol(
        subprotocols=[SUBPROTOCOL],
        select_subprotocol=_chosen,
        max_size=exchange.limits.body_bytes_max,
        state=State.OPEN,  # the request was read already
        logger=frame_logger(),
    )
    asked = Request(
        path=request.path,
        headers=Headers(list(request.headers.items())),
        method=request.method,
        protocol=f"HTTP/{request.version}",
    )
    answer = frames.accept(asked)
    if answer.status_code != ACCEPTED or request.body:
        raise _refusal(frames.handshake_exc)
    answer.headers["x-request-id"] = request.request_id
    front_headers(request, answer.headers, exchange.limits)
    connection = cast("BoundedHttpProtocol", request.protocol)
    await connection.send(answer.serialize())
    request.is_stream = True
    return WebSocket(frames, connection)


def _chosen(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours, if anything is offered: a browser fails where none of what it offers is chosen."""
    if offered and SUBPROTOCOL not in offered:
        raise NegotiationError(f"none of the subprotocols is {SUBPROTOCOL}")
    return SUBPROTOCOL if offered else None


def _refusal(error: Exception | None) -> RequestRefused:
    if isinstance(error, InvalidUpgrade):
        return RequestRefused(
            "upgrade_required",
            "a WebSocket is spoken here: send Connection: Upgrade and Upgrade: websocket, as its clients do",
            headers={"upgrade": "websocket"},
        )
    if isinstance(error, NegotiationError):
        return RequestRefused(
            "invalid_value",
            f"Sec-WebSocket-Protocol must have {SUBPROTOCOL} among what it offers",
            param="Sec-WebSocket-Protocol",
        )
    # By its name: what stands in a header may be the credential.
    what = "it has a body" if error is None else str(error)[:200]
    if isinstance(error, InvalidHeader):
        what = f"{error.name} is missing, or is not as it must be"
    return RequestRefused("bad_request", f"this is no opening handshake of a WebSocket (RFC 6455): {what}")
