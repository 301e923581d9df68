"""A request's way to its response: the one that it starts, or that of the attempt before it, which it waits for too."""

from __future__ import annotations

from manent.adapters.http.context import Exchange
from manent.adapters.http.retries import Retry
from manent.domain.usecases.create_response import ResponseCommand
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion


class ResponseAttempt:
    """Starts a response for one request, and leaves it when its client does.

    A response that is accepted in the background is left by nobody. One whose whole answer an SDK waits for is left a
    while later, in which the SDK may have tried again.
    """

    def __init__(self, exchange: Exchange, command: ResponseCommand) -> None:
        self._exchange = exchange
        self._command = command
        self._retry = Retry.of(exchange)
        self._reader: Reader | None = None

    async def start(self) -> RunningCompletion:
        """The response, accepted; raises as ``CreateResponse.start``."""
        running = None if self._retry is None else self._retry.attached()
        if running is None:
            return await self._exchange.services.responses.create.start(self._command, self._began)
        self._began(running)
        await running.accepted()
        return running

    def leave(self, reason: str) -> None:
        """The client is gone, for the first reason that is given."""
        reader = self._reader
        if reader is None or (self._command.details.background and reader.running.request is not None):
            return
        if self._retry is None or self._command.chat.stream:
            reader.leave(reason)
        else:
            self._retry.leave_later(reader, reason)

    def _began(self, running: RunningCompletion) -> None:
        self._reader = Reader(running)
        self._exchange.request.completion = running
        if self._retry is not None:
            self._retry.remember(running)
