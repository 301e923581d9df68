"""GET /v1/ws/chat: chats over a WebSocket, several at once, each with the chunks that its server-sent events would be.

A message is the request that it stands for, and goes through the same door: credential, limits, middleware, log.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from websockets.frames import CloseCode

from manent.adapters.http.chat import answer_chat
from manent.adapters.http.chat_command import read_chat_request
from manent.adapters.http.chat_frames import ChatFrames
from manent.adapters.http.chat_resume import resume_chat
from manent.adapters.http.chat_routes import CREATE_CHAT, RESUME_CHAT
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused, row_of
from manent.adapters.http.front_door import admit
from manent.adapters.http.handshake import open_websocket
from manent.adapters.http.json_body import LARGE_BODY_BYTES
from manent.adapters.http.middleware import passed
from manent.adapters.http.request_log import log_request, log_socket
from manent.adapters.http.socket_messages import (
    CancelMessage,
    ChatMessage,
    ResumeMessage,
    id_of,
    read_members,
    read_message,
)
from manent.adapters.http.socket_request import SocketRequest
from manent.adapters.http.socket_watch import watch_socket
from manent.adapters.http.stream_cursor import Cursor
from manent.adapters.http.streams import RETRY_S
from manent.adapters.http.websocket import WebSocket
from manent.adapters.http.wire_requests import ChatRequest
from manent.domain.access import check_entry
from manent.domain.errors import CompletionCancelledError, DomainError, InternalError

MISTAKES_MAX = 16
MISTAKEN = 4400
CANCELLED = "cancelled_by_client"

_log = logging.getLogger("manent.http")


async def chat_socket(exchange: Exchange) -> None:
    """Switch to a WebSocket and answer what comes over it, until either side closes."""
    with exchange.request.websockets.place():
        websocket = await open_websocket(exchange)
        try:
            await ChatSocket(exchange, websocket).serve()
        except asyncio.CancelledError:
            websocket.cut()  # the connection is lost: what was asked for on it was left, and nobody hears an answer
        except Exception:  # noqa: BLE001  # the boundary: logged in full; no status can tell it any more
            _log.exception("a WebSocket ended in a defect, request %s", exchange.request.request_id)
            websocket.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            log_socket(exchange.request, websocket.close_code)


@dataclass(slots=True, kw_only=True)
class _Asked:
    """A request that is answered."""

    message: ChatMessage | ResumeMessage
    request: SocketRequest
    frames: ChatFrames
    size_bytes: int
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False


class ChatSocket:
    """One open WebSocket and the requests that are answered on it."""

    def __init__(self, exchange: Exchange, websocket: WebSocket) -> None:
        self._exchange = exchange
        self._websocket = websocket
        self._running: dict[str, _Asked] = {}
        self._mistakes = 0

    async def serve(self) -> None:
        """Answer until either side closes; what still runs then is left, as by a client that disconnects."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch_socket(self._exchange, self._websocket, lambda: bool(self._running)))
            while (message := await self._websocket.receive()) is not None:
                await self._take(group, message)
            watching.cancel()
            for asked in self._running.values():
                if asked.task is not None:
                    asked.task.cancel()
        await self._websocket.goodbye()

    async def _take(self, group: asyncio.TaskGroup, text: bytes) -> None:
        """Begin what a message asks for; what is none is told, and too many of those close the socket."""
        message_id = None
        try:
            members = await read_members(text)
            message_id = id_of(members)
            message = read_message(members)
        except RequestRefused as error:
            await self._refuse(message_id, error)
            self._mistakes += 1
            if self._mistakes >= MISTAKES_MAX:
                self._websocket.close(MISTAKEN, f"{MISTAKES_MAX} messages were none that could be answered")
            return
        if isinstance(message, CancelMessage):
            self._cancel(message.id)
            return
        most = self._exchange.limits.websocket_requests_max
        if message.id in self._running or len(self._running) >= most:
            await self._finished()
        if message.id in self._running:  # told without the id: what runs under it has not failed
            words = f"a request with id {message.id!r} runs already"
            await self._refuse(None, RequestRefused("invalid_value", words, param="id"))
        elif len(self._running) >= most:
            words = f"as many requests of this WebSocket are answered as may be at once ({most}); wait for one to end"
            await self._refuse(message.id, RequestRefused("too_many_streams", words, retry_after_s=RETRY_S))
        else:
            self._begin(group, message, size_bytes=len(text))

    async def _finished(self) -> None:
        """Wait for those whose end was told, and behind which middleware still runs: their ids and places are free."""
        told = {asked.task for asked in self._running.values() if asked.frames.is_told and asked.task is not None}
        if told:
            await asyncio.wait(told)

    async def _refuse(self, message_id: str | None, error: DomainError) -> None:
        request = SocketRequest.of(self._exchange.request, CREATE_CHAT, CREATE_CHAT.paths[0], {})
        await self._frames(message_id, request).fail(error)

    def _begin(self, group: asyncio.TaskGroup, message: ChatMessage | ResumeMessage, *, size_bytes: int) -> None:
        request = self._request_of(message)
        frames = self._frames(message.id, request)
        asked = _Asked(message=message, request=request, frames=frames, size_bytes=size_bytes)
        self._running[message.id] = asked
        asked.task = group.create_task(self._answer(asked), name=f"message {request.request_id}")
        asked.task.add_done_callback(lambda _: self._running.pop(message.id, None))

    def _request_of(self, message: ChatMessage | ResumeMessage) -> SocketRequest:
        upgrade = self._exchange.request
        if isinstance(message, ResumeMessage):
            path = f"{CREATE_CHAT.paths[0]}/{quote(message.completion_id, safe='')}/stream"
            return SocketRequest.of(upgrade, RESUME_CHAT, path, {})
        headers = {"idempotency-key": message.idempotency_key, "if-match": message.if_match}
        request = SocketRequest.of(upgrade, CREATE_CHAT, CREATE_CHAT.paths[0], headers)
        if message.idempotency_key is not None:
            request.body = msgspec.json.encode(message.body)  # what makes it the same request
        return request

    def _frames(self, message_id: str | None, request: SocketRequest) -> ChatFrames:
        return ChatFrames(self._websocket, message_id, request, ping_interval_s=self._exchange.limits.ping_interval_s)

    def _cancel(self, message_id: str) -> None:
        """Stop a request; its completion is closed in the log before that is told."""
        asked = self._running.get(message_id)
        if asked is None or asked.is_cancelled:
            return
        asked.is_cancelled = True
        completion = asked.request.completion
        if completion is not None:
            completion.cancel(CANCELLED)
        if asked.task is not None and (completion is None or isinstance(asked.message, ResumeMessage)):
            asked.task.cancel()

    async def _answer(self, asked: _Asked) -> None:
        """Answer one message to its end, whatever happens."""
        asked.request.begin()
        error: DomainError | None = None
        try:
            with self._websocket.working():
                try:
                    await self._admitted(asked)
                except DomainError as refused:
                    error = refused
                except asyncio.CancelledError:
                    error = _stopped(asked)
                    if not asked.is_cancelled:
                        raise
                except Exception as defect:  # noqa: BLE001  # the boundary: logged in full, and told
                    _log.exception("a message ended in a defect, request %s", asked.request.request_id)
                    error = InternalError(f"internal error ({type(defect).__name__}); the server's log has the details")
                if error is not None and not asked.frames.is_ended:
                    await asked.frames.fail(error)
        finally:
            if error is not None and not asked.request.is_stream:
                asked.request.error_code = error.code
                log_request(asked.request, row_of(error).status)

    async def _admitted(self, asked: _Asked) -> None:
        """Pass the door as any request does, and be answered."""
        outer, request, message = self._exchange, asked.request, asked.message
        principal = await admit(request, outer.services, outer.limits, public=False)
        check_entry(principal, CREATE_CHAT.scope, reads=False)
        exchange = replace(outer, request=request, principal=principal, frames=asked.frames)
        if isinstance(message, ChatMessage):
            await passed(CREATE_CHAT, exchange, lambda: _chat(exchange, message.body, asked.size_bytes))
        else:
            await passed(RESUME_CHAT, exchange, lambda: _resume(exchange, message))


async def _chat(exchange: Exchange, body: dict[str, Any], size_bytes: int) -> None:
    read = partial(_read_chat, body, messages_max=exchange.limits.messages_max)
    await answer_chat(exchange, read() if size_bytes < LARGE_BODY_BYTES else await asyncio.to_thread(read))


async def _resume(exchange: Exchange, message: ResumeMessage) -> None:
    cursor = Cursor() if message.cursor is None else Cursor.read(message.cursor, param="cursor")
    await resume_chat(exchange, message.completion_id, cursor, include_usage=message.include_usage)


def _read_chat(body: dict[str, Any], *, messages_max: int) -> ChatRequest:
    if body.get("stream", True) is not True:
        raise RequestRefused(
            "invalid_value", "a chat over a WebSocket is always streamed; leave out stream", param="stream"
        )
    return read_chat_request({**body, "stream": True}, messages_max=messages_max)


def _stopped(asked: _Asked) -> DomainError:
    if asked.is_cancelled:
        return CompletionCancelledError("the request was cancelled by its client")
    return RequestRefused("client_disconnected", "the client closed the connection")
