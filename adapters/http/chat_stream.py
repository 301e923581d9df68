"""A completion as server-sent events, in the order that OpenAI's clients insist on.

Role chunk, deltas, an empty delta with the finish_reason, the usage chunk where it was asked for, ``[DONE]``. No event
has an id: openai-python takes a comment line for an empty event once it has seen one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from sanic import HTTPResponse

from manent.adapters.http.answers import (
    logprobs_answer,
    queue_headers,
    session_headers,
    system_fingerprint,
    usage_answer,
)
from manent.adapters.http.context import Exchange
from manent.adapters.http.delta_feed import DeltaFeed
from manent.adapters.http.errors import error_body
from manent.adapters.http.protocol import ClientStalled
from manent.adapters.http.request_log import log_stream
from manent.domain.errors import CompletionCancelledError, DomainError, InternalError, ShuttingDown
from manent.domain.events import CompletionGenerated
from manent.domain.generation import FinishReason, TextDelta
from manent.domain.messages import ToolCall
from manent.domain.usecases.running import Accepted, RunningCompletion

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

_log = logging.getLogger("manent.http")


async def stream_completion(exchange: Exchange, running: RunningCompletion, *, include_usage: bool) -> None:
    """Stream ``running`` to the client.

    A request that is not accepted soon, because its model is being loaded say, has its stream opened and kept alive;
    what refuses it after that is told in the stream.

    Raises:
        DomainError: the request was refused before it was accepted, and nothing was sent yet.
    """
    accepting = asyncio.create_task(running.accepted(), name=f"accept {running.completion_id}")
    try:
        await asyncio.wait({accepting}, timeout=exchange.limits.ping_interval_s)
        if accepting.done():
            accepting.result()
        headers = {**queue_headers(running), **session_headers(running.session_id)}
        writer = await EventWriter.open(exchange, headers=headers, stalled=lambda: running.cancel("client_stalled"))
        await _stream(exchange, writer, running, accepting, include_usage=include_usage)
    finally:
        accepting.cancel()


async def _stream(
    exchange: Exchange,
    writer: EventWriter,
    running: RunningCompletion,
    accepting: asyncio.Task[Accepted],
    *,
    include_usage: bool,
) -> None:
    outcome = "done"
    try:
        await _follow(writer, running, accepting, include_usage=include_usage)
    except asyncio.CancelledError:
        running.cancel("client_disconnected")
        outcome = running.stop_reason or "client_disconnected"
        raise
    except DomainError as error:
        outcome = error.code
    finally:
        log_stream(exchange.request, outcome)


async def _follow(
    writer: EventWriter, running: RunningCompletion, accepting: asyncio.Task[Accepted], *, include_usage: bool
) -> None:
    """Send everything, and ``[DONE]`` only once the event that records the completion is committed."""
    try:
        while not accepting.done():
            await writer.send(PING)
            await asyncio.wait({accepting}, timeout=writer.ping_interval_s)
        chunks = ChunkEncoder(running, accepting.result(), include_usage=include_usage)
        await writer.send(chunks.role())
        async with DeltaFeed(running) as feed:
            while (pieces := await feed.take(writer.ping_interval_s)) is not None:
                await writer.send(b"".join(map(chunks.delta, pieces)) or PING)
        generated = await running.generated()
        await writer.end(chunks.finish(generated) + DONE)
    except DomainError as error:
        # A cut stream counts as success in Python and in LangChain, so the error is always sent.
        told = told_error(running, error)
        await writer.end(b"data: " + error_body(told) + b"\n\n")
        raise told from None
    except Exception as error:  # noqa: BLE001  # the boundary: logged in full, told, and raised as a DomainError
        # The headers are out: no status can tell the defect any more, only the stream itself.
        _log.exception("streaming %s ended in a defect", running.completion_id)
        told = InternalError(f"internal error ({type(error).__name__}) while streaming {running.completion_id}")
        await writer.end(b"data: " + error_body(told) + b"\n\n")
        raise told from None


def told_error(running: RunningCompletion, error: DomainError) -> DomainError:
    """What the client is told: a stop because of a shutdown is worth a retry, one that somebody asked for is not."""
    if isinstance(error, CompletionCancelledError) and running.stop_reason == "shutting_down":
        return ShuttingDown("the server shut down before the completion was finished")
    return error


class EventWriter:
    """The response of a stream. Writing raises ClientStalled where the client does not read what went before."""

    def __init__(self, response: HTTPResponse, *, stalled: Callable[[], None], ping_interval_s: float) -> None:
        self._response = response
        self._stalled = stalled
        self.ping_interval_s = ping_interval_s

    @classmethod
    async def open(cls, exchange: Exchange, *, headers: Mapping[str, str], stalled: Callable[[], None]) -> EventWriter:
        """Prepare the status line and headers; they go out with the first bytes. ``stalled`` is told of no reading."""
        exchange.request.is_stream = True
        response = await exchange.request.respond(
            status=200,
            headers={**EVENT_STREAM_HEADERS, **headers},
            content_type="text/event-stream; charset=utf-8",
        )
        return cls(response, stalled=stalled, ping_interval_s=exchange.limits.ping_interval_s)

    async def send(self, data: bytes) -> None:
        """Send ``data``."""
        await self._send(data, end_stream=False)

    async def end(self, data: bytes) -> None:
        """Send ``data``, the last of the stream."""
        await self._send(data, end_stream=True)

    async def _send(self, data: bytes, *, end_stream: bool) -> None:
        try:
            await self._response.send(data, end_stream)
        except ClientStalled:
            # At once: the connection is cut already, and the disconnect that follows is not the reason to record.
            self._stalled()
            raise


class ChunkEncoder:
    """Chunks of one completion as events. Encoded by msgspec: this runs for every few tokens."""

    def __init__(self, running: RunningCompletion, accepted: Accepted, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._parameters = accepted.requested.parameters
        self._calls: Counter[int] = Counter()
        self._frame: dict[str, Any] = {
            "id": running.completion_id,
            "object": "chat.completion.chunk",
            "created": accepted.requested.requested_at_us // 1_000_000,
            "model": accepted.requested.model_id,
            "choices": [],
            "system_fingerprint": None,
            "service_tier": "default",
        }
        if running.session_id is not None:
            self._frame["session_id"] = running.session_id
        if include_usage:
            self._frame["usage"] = None

    def role(self) -> bytes:
        """The first chunk of each choice, which says who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._event(_choice(index, delta)) for index in range(self._parameters.n))

    def delta(self, piece: TextDelta) -> bytes:
        """Chunks of reasoning, of text and of tool calls, each of which comes in two: who is called, and with what."""
        chunks = b""
        if piece.reasoning:
            chunks += self._event(_choice(piece.index, {"reasoning_content": piece.reasoning}))
        if piece.text or piece.logprobs:
            logprobs = logprobs_answer(piece.logprobs) if self._parameters.logprobs else None
            chunks += self._event(_choice(piece.index, {"content": piece.text}, logprobs=logprobs))
        for call in piece.tool_calls:
            number = self._calls[piece.index]
            self._calls[piece.index] += 1
            for fragment in call_fragments(call, number):
                chunks += self._event(_choice(piece.index, {"tool_calls": [fragment]}))
        return chunks

    def finish(self, generated: CompletionGenerated) -> bytes:
        """The last chunks: why each choice ended and, where it was asked for, the usage."""
        self._frame["system_fingerprint"] = system_fingerprint(generated.provenance)
        reasons = [generated.finish_reason, *(other.finish_reason for other in generated.alternatives)]
        last = b"".join(
            self._event(_choice(index, {}, finish_reason=(reason or FinishReason.STOP).value))
            for index, reason in enumerate(reasons)
        )
        if not self._include_usage:
            return last
        self._frame["usage"] = usage_answer(generated.usage).model_dump()
        return last + self._event()

    def _event(self, *choices: dict[str, Any]) -> bytes:
        self._frame["choices"] = choices
        return b"data: " + msgspec.json.encode(self._frame) + b"\n\n"


def call_fragments(call: ToolCall, index: int) -> list[dict[str, Any]]:
    """A tool call as clients put it together: id, type and name in the first fragment, the arguments behind it."""
    first = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
    return [first, {"index": index, "function": {"arguments": call.arguments}}]


def _choice(
    index: int, delta: dict[str, Any], *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
