"""A completion as a stream of chunks, in the order that OpenAI's clients insist on, and as server-sent events.

Role chunk, deltas, an empty delta with the finish_reason, the usage chunk where it was asked for, ``[DONE]``. Each
chunk has an id, behind which a reader who lost its connection goes on. A WebSocket sends the same chunks in frames of
its own (``chat_frames.py``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sanic import HTTPResponse

from manent.adapters.http.answers import queue_headers, session_headers
from manent.adapters.http.chat_chunks import ChunkEncoder
from manent.adapters.http.chunk_writer import ChunkWriter
from manent.adapters.http.context import Exchange
from manent.adapters.http.delta_feed import DeltaFeed
from manent.adapters.http.errors import error_body
from manent.adapters.http.protocol import ClientStalled
from manent.adapters.http.request_log import log_stream
from manent.adapters.http.stream_cursor import Chunk, Cursor
from manent.domain.errors import CompletionCancelledError, DomainError, InternalError, ShuttingDown, StreamPassed
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import Accepted, RunningCompletion

# One newline: openai-python takes a comment with a blank line behind it for an event once it has seen an id.
PING = b": ping\n"
DONE = b"data: [DONE]\n\n"
EVENT_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
POSITION_S = 30.0
"""How long a reader who comes back waits for the deltas that it has seen to be there again."""

_T = TypeVar("_T")
_Writer = TypeVar("_Writer", bound=ChunkWriter)

_log = logging.getLogger("manent.http")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWords:
    """How an API says in a stream that there is nothing to say yet, and what went wrong."""

    ping: bytes
    error: Callable[[DomainError], bytes]


def _error_event(error: DomainError) -> bytes:
    return b"data: " + error_body(error) + b"\n\n"


OPENAI_WORDS = StreamWords(ping=PING, error=_error_event)


async def stream_completion(exchange: Exchange, reader: Reader, *, include_usage: bool) -> None:
    """Stream a completion to the client; raises as ``stream_accepted``."""

    async def follow(writer: ChunkWriter, accepting: asyncio.Task[Accepted]) -> None:
        await _from_the_first(writer, reader.running, accepting, include_usage=include_usage)

    await stream_accepted(exchange, reader, lambda: _opened(exchange, reader), follow)


async def stream_accepted(
    exchange: Exchange,
    reader: Reader,
    opening: Callable[[], Awaitable[_Writer]],
    follow: Callable[[_Writer, asyncio.Task[Accepted]], Awaitable[None]],
) -> None:
    """Open a stream for a completion, and have ``follow`` send it; its task ends once the request is accepted.

    A request that is not accepted soon, because its model is being loaded say, has its stream opened and kept alive;
    what refuses it after that is told in the stream.

    Raises:
        DomainError: the request was refused before it was accepted, and nothing was sent yet.
    """
    running = reader.running
    accepting = asyncio.create_task(running.accepted(), name=f"accept {running.completion_id}")
    try:
        await asyncio.wait({accepting}, timeout=exchange.limits.ping_interval_s)
        if accepting.done():
            accepting.result()
        writer = await opening()
        await stream_to_the_end(exchange, [reader], follow(writer, accepting), writer)
    finally:
        accepting.cancel()


async def resume_stream(exchange: Exchange, reader: Reader, cursor: Cursor, *, include_usage: bool) -> None:
    """Stream what comes behind ``cursor``.

    Raises:
        StreamPassed: that is not known any more, and nothing was sent.
        DomainError: the completion is not to be had.
    """
    running = reader.running
    accepted = await running.accepted()
    try:
        async with asyncio.timeout(POSITION_S):
            await running.reaches(cursor.end)
    except TimeoutError:
        raise StreamPassed("what this event belongs to is not to be had now; resume later") from None
    chunks = ChunkEncoder(running, accepted, include_usage=include_usage)
    rest, number = chunks.go_on(cursor, running.produced)
    writer = await _opened(exchange, reader)
    await stream_to_the_end(exchange, [reader], _follow(writer, running, chunks, rest, number), writer)


async def stream_to_the_end(
    exchange: Exchange, readers: Sequence[Reader], sending: Awaitable[None], writer: ChunkWriter
) -> None:
    """Send everything, whatever happens; the error of a completion that cannot go on is told and raised."""
    running, outcome = readers[0].running, "done"
    try:
        await sending
    except asyncio.CancelledError:
        for reader in readers:
            reader.leave("client_disconnected")
        outcome = running.stop_reason or "client_disconnected"
        raise
    except DomainError as error:
        # A cut stream counts as success in Python and in LangChain, so the error is always sent.
        told = told_error(running, error)
        outcome = told.code
        await writer.fail(told)
        raise told from None
    except Exception as error:  # noqa: BLE001  # the boundary: logged in full, told, and raised as a DomainError
        # The headers are out: no status can tell the defect any more, only the stream itself.
        _log.exception("streaming %s ended in a defect", running.completion_id)
        told = InternalError(f"internal error ({type(error).__name__}) while streaming {running.completion_id}")
        outcome = told.code
        await writer.fail(told)
        raise told from None
    finally:
        log_stream(exchange.request, outcome)


async def _opened(exchange: Exchange, reader: Reader) -> ChunkWriter:
    """What the chunks are written to: an answer of server-sent events, or frames of the socket that asked."""
    if exchange.frames is not None:
        return await exchange.frames.open(reader)
    return await EventWriter.open(exchange, reader)


async def _from_the_first(
    writer: ChunkWriter, running: RunningCompletion, accepting: asyncio.Task[Accepted], *, include_usage: bool
) -> None:
    while not accepting.done():
        await writer.chunks(())
        await asyncio.wait({accepting}, timeout=writer.ping_interval_s)
    chunks = ChunkEncoder(running, accepting.result(), include_usage=include_usage)
    await _follow(writer, running, chunks, chunks.opening(), 0)


async def _follow(
    writer: ChunkWriter, running: RunningCompletion, chunks: ChunkEncoder, first: list[Chunk], number: int
) -> None:
    """Send ``first``, then what comes of the deltas from ``number`` on.

    The end is told only once the event that records the completion is committed.
    """
    await writer.chunks(first)
    async with DeltaFeed(running, start=number) as feed:
        while (deltas := await feed.take(writer.ping_interval_s)) is not None:
            number = deltas.end
            await writer.chunks(chunks.batch(deltas))
    generated = await running.generated()
    await writer.finish(chunks.finish(generated, number))


def told_error(running: RunningCompletion, error: DomainError) -> DomainError:
    """What the client is told: a stop because of a shutdown is worth a retry, one that somebody asked for is not."""
    if isinstance(error, CompletionCancelledError) and running.stop_reason == "shutting_down":
        return ShuttingDown("the server shut down before the completion was finished")
    return error


class EventWriter:
    """The response of a stream. Writing raises ClientStalled where the client does not read what went before."""

    def __init__(
        self,
        response: HTTPResponse,
        *,
        stalled: Callable[[], None],
        ping_interval_s: float,
        words: StreamWords = OPENAI_WORDS,
    ) -> None:
        self.words = words
        self._response = response
        self._stalled = stalled
        self.ping_interval_s = ping_interval_s

    @classmethod
    async def open(cls, exchange: Exchange, *readers: Reader, words: StreamWords = OPENAI_WORDS) -> EventWriter:
        """Prepare the status line and headers; they go out with the first bytes."""

        def stalled() -> None:
            for reader in readers:
                reader.leave("client_stalled")

        running = readers[0].running
        headers = {**queue_headers(running), **session_headers(running.session_id)}
        return await cls.of(exchange, headers=headers, stalled=stalled, words=words)

    @classmethod
    async def of(
        cls,
        exchange: Exchange,
        *,
        headers: Mapping[str, str],
        stalled: Callable[[], None],
        words: StreamWords = OPENAI_WORDS,
    ) -> EventWriter:
        """The same for any stream; ``stalled`` is told where the client does not read."""
        exchange.request.is_stream = True
        response = await exchange.request.respond(
            status=200,
            headers={**EVENT_STREAM_HEADERS, **headers},
            content_type="text/event-stream; charset=utf-8",
        )
        return cls(response, stalled=stalled, ping_interval_s=exchange.limits.ping_interval_s, words=words)

    async def kept_alive(self, work: asyncio.Task[_T]) -> _T:
        """The result of ``work``; until it is there, silence is filled with pings."""
        while not work.done():
            await self.send(self.words.ping)
            await asyncio.wait({work}, timeout=self.ping_interval_s)
        return work.result()

    async def chunks(self, chunks: Sequence[Chunk]) -> None:
        """Send ``chunks``, or a sign of life where there are none."""
        await self.send(b"".join(map(_event, chunks)) or self.words.ping)

    async def finish(self, chunks: Sequence[Chunk]) -> None:
        """Send ``chunks``, the last ones, and ``[DONE]``."""
        await self.end(b"".join(map(_event, chunks)) + DONE)

    async def fail(self, error: DomainError) -> None:
        """Send why nothing follows."""
        await self.end(self.words.error(error))

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


def _event(chunk: Chunk) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (str(chunk.cursor).encode(), chunk.data)
