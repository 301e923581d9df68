"""A response as server-sent events: as it is generated, or from the log, from its beginning or from a number on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TypeVar

from manent.adapters.http.answers import queue_headers, session_headers
from manent.adapters.http.chat_stream import PING, EventWriter, told_error
from manent.adapters.http.context import Exchange
from manent.adapters.http.delta_feed import DeltaFeed
from manent.adapters.http.request_log import log_stream
from manent.adapters.http.response_answer import ResponseFrame, frame_of
from manent.adapters.http.response_attempt import ResponseAttempt
from manent.adapters.http.response_events import ResponseEvents, refusal_event
from manent.domain.errors import DomainError, InternalError
from manent.domain.events import CompletionOutcome
from manent.domain.output_pieces import PieceReader
from manent.domain.recorded_output import output_of
from manent.domain.usecases.create_response import ResponseCommand
from manent.domain.usecases.find_completion import FoundRequest
from manent.domain.usecases.read_responses import RecordedResponse
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion

WRITE_BYTES = 64 * 1024
EVENT_STREAM = "text/event-stream"
"""What a browser's EventSource accepts, and nothing else; it resumes by the ids of events, and OpenAI's SDKs do not."""
_T = TypeVar("_T")

_log = logging.getLogger("manent.http")


async def frame_of_new(command: ResponseCommand, running: RunningCompletion) -> ResponseFrame:
    """The frame of a response that was accepted: what the log has or, where it is not stored, what was asked for."""
    requested = (await running.accepted()).requested
    if requested.response is not None:
        return ResponseFrame.recorded(requested, requested.response)
    instructions = command.chat.instructions
    return ResponseFrame(
        requested=requested,
        details=command.details,
        instructions=None if instructions is None else instructions.text,
        truncation=command.chat.truncation,
    )


async def stream_new(exchange: Exchange, command: ResponseCommand, attempt: ResponseAttempt) -> None:
    """Start a response and stream it; ``attempt`` is left where the client does not read, or leaves.

    One that is not accepted soon has its stream opened and kept alive; what refuses it then is told in the stream.

    Raises:
        DomainError: the request was refused before anything was sent.
    """
    starting = asyncio.create_task(attempt.start(), name="start a response")
    try:
        await asyncio.wait({starting}, timeout=exchange.limits.ping_interval_s)
        headers = {}
        if starting.done():
            running = starting.result()
            requested = (await running.accepted()).requested
            headers = {**queue_headers(running), **session_headers(requested.session_id)}
        reader = _Reader(exchange, attempt.leave)
        writer = await EventWriter.of(exchange, headers=headers, stalled=reader.stalled)
        await _told(exchange, writer, _started(reader, writer, command, starting))
    finally:
        starting.cancel()


async def stream_recorded(exchange: Exchange, found: RecordedResponse, *, after: int | None) -> None:
    """Stream a response that was accepted before, behind event number ``after``, and follow it to its end."""
    headers = session_headers(found.session_id)
    with_ids = exchange.request.headers.get("accept") == EVENT_STREAM
    events = ResponseEvents(frame_of(found), after=after, with_ids=with_ids)
    if found.outcome is not None:
        writer = await EventWriter.of(exchange, headers=headers, stalled=lambda: None)
        await _told(exchange, writer, _replayed(writer, events, found.outcome))
        return
    running = exchange.services.responses.read.running(exchange.principal, found.response_id)
    runs_here = running is not None
    if running is None:
        request = FoundRequest(header=found.header, requested=found.requested)
        running = exchange.services.resume.follow(exchange.principal, request)
    else:
        running.join()
    following = Reader(running)

    def leave(reason: str) -> None:
        if not (runs_here and found.details.background):
            following.leave(reason)

    reader = _Reader(exchange, leave, runs_here=runs_here)
    try:
        writer = await EventWriter.of(exchange, headers=headers, stalled=reader.stalled)
        await _told(exchange, writer, reader.follow(writer, running, events))
    except BaseException:
        leave("client_disconnected")
        raise


class _Reader:
    """Whoever reads the stream, and how it leaves."""

    def __init__(self, exchange: Exchange, leave: Callable[[str], None], *, runs_here: bool = True) -> None:
        self._exchange = exchange
        self._leave = leave
        self._runs_here = runs_here

    def stalled(self) -> None:
        """It does not read what it asked for."""
        self._leave("client_stalled")

    async def follow(self, writer: EventWriter, running: RunningCompletion, events: ResponseEvents) -> None:
        """Send everything, and the last event only once the end is committed."""
        try:
            outcome = await self._follow(writer, running, events)
        except asyncio.CancelledError:
            self._leave("client_disconnected")
            raise
        except DomainError as error:
            told = told_error(running, error)
            ended = await self._recorded_end(running)
            if ended is not None:
                await writer.end(events.end(ended))
            else:
                await writer.end(events.broken(told) if self._runs_here else events.lost(told))
            raise told from None
        await writer.end(events.end(outcome))

    async def _follow(
        self, writer: EventWriter, running: RunningCompletion, events: ResponseEvents
    ) -> CompletionOutcome:
        pieces = PieceReader()
        await writer.send(events.start() or PING)
        async with DeltaFeed(running) as feed:
            while (taken := await feed.take(writer.ping_interval_s)) is not None:
                # As they came, and not joined: the log tells the same events again.
                deltas = running.produced[taken.start : taken.end]
                data = b"".join(events.piece(piece) for delta in deltas for piece in pieces.push(delta))
                await writer.send(data or PING)
        return await running.generated()

    async def _recorded_end(self, running: RunningCompletion) -> CompletionOutcome | None:
        """The end as the log has it: what is told now is what will be told again."""
        try:
            found = await self._exchange.services.responses.read.get(self._exchange.principal, running.completion_id)
        except DomainError:
            return None
        return found.outcome


async def _started(
    reader: _Reader, writer: EventWriter, command: ResponseCommand, starting: asyncio.Task[RunningCompletion]
) -> None:
    try:
        running = await _kept_alive(writer, starting)
    except DomainError as error:
        await writer.end(refusal_event(error))
        raise
    frame = await frame_of_new(command, running)
    await reader.follow(writer, running, ResponseEvents(frame))


async def _replayed(writer: EventWriter, events: ResponseEvents, outcome: CompletionOutcome) -> None:
    """What the log has."""
    data = events.start()
    for piece in output_of(outcome).pieces():
        data += events.piece(piece)
        if len(data) > WRITE_BYTES:
            await writer.send(data)
            data = b""
    await writer.end(data + events.end(outcome) or PING)


async def _kept_alive(writer: EventWriter, work: asyncio.Task[_T]) -> _T:
    await asyncio.wait({work}, timeout=writer.ping_interval_s)
    return await writer.kept_alive(work)


async def _told(exchange: Exchange, writer: EventWriter, stream: Coroutine[None, None, None]) -> None:
    """Carry a stream to its end, and log how it ended: its headers are out, and no status can tell that any more."""
    outcome = "done"
    try:
        await stream
    except asyncio.CancelledError:
        outcome = "client_disconnected"
        raise
    except DomainError as error:
        outcome = error.code
    except Exception as error:  # noqa: BLE001 (the boundary: logged in full, and told)
        _log.exception("streaming a response ended in a defect, request %s", exchange.request.request_id)
        outcome = InternalError.code
        await writer.end(refusal_event(InternalError(f"internal error ({type(error).__name__}) while streaming")))
    finally:
        log_stream(exchange.request, outcome)
