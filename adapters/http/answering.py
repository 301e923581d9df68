"""What all requests for one completion have in common: its start, or the attempt before it; its reader; its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass

from sanic import HTTPResponse

from manent.adapters.http.chat_stream import told_error
from manent.adapters.http.context import Exchange
from manent.adapters.http.retries import Retry
from manent.domain.errors import CompletionCancelledError
from manent.domain.made_often import made_often
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a completion is to be answered: streamed, or whole; a ``background`` one is generated whoever leaves."""

    stream: Callable[[Reader], Awaitable[None]]
    whole: Callable[[RunningCompletion], Awaitable[HTTPResponse]]
    streams: bool
    background: bool = False


async def answer_completion(
    exchange: Exchange, command: Callable[[], Awaitable[ChatCommand]], wanted: Wanted
) -> HTTPResponse | None:
    """Answer with a completion; None where the answer was streamed.

    A client that disconnects has its handler cancelled, at whatever it waits for; the completion is told at once, or
    after the time in which an SDK that tries again would have come back.
    """
    exchange.request.watch_connection()
    with exchange.request.streams.place() if wanted.streams else nullcontext():
        return await _answer(exchange, command, wanted)


async def _answer(
    exchange: Exchange, command: Callable[[], Awaitable[ChatCommand]], wanted: Wanted
) -> HTTPResponse | None:
    retry = Retry.of(exchange)
    running = None if retry is None else retry.attached()
    if running is None:
        running = exchange.services.chat.start(await command())
    if retry is not None:
        retry.remember(running)
    if wanted.background:
        running.join()  # the log reads along, and somebody may come back
        running.comes_back = True
    exchange.request.completion = running
    reader = Reader(running)
    try:
        if wanted.streams:
            await wanted.stream(reader)
            return None
        return await wanted.whole(running)
    except asyncio.CancelledError:
        if wanted.streams or retry is None:
            reader.leave("client_disconnected")
        else:
            retry.leave_later(reader, "client_disconnected")
        raise
    except CompletionCancelledError as error:
        raise told_error(running, error) from None
