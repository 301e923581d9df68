"""A runner as the server sees it: requests go in, each one's frames come out, and its end fails them all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from manent.adapters.inference.exchange import Exchange, RunnerLimits
from manent.adapters.inference.process import RunnerProcess
from manent.adapters.inference.protocol import (
    Cancel,
    Counted,
    Delta,
    Explained,
    Failed,
    Finished,
    LoadFailed,
    Ping,
    Pong,
    Progress,
    ProtocolError,
    Ready,
    Rendered,
    RunnerFacts,
    RunnerFrame,
    ServerFrame,
    Shutdown,
    encode,
    read_runner_frame,
)
from manent.domain.errors import EngineUnavailable, ModelLoadError

OnCrash = Callable[[str, int], Awaitable[None]]
"""Called with the reason and the number of requests that were failed with the runner."""

_CLOSE_S = 5.0


class Runner:
    """A loaded model in a process of its own, and the requests that it is working on."""

    def __init__(
        self, process: RunnerProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: RunnerLimits
    ) -> None:
        self.limits = limits
        self.facts: RunnerFacts
        self._process = process
        self._reader = reader
        self._writer = writer
        self._exchanges: dict[int, Exchange] = {}
        self._ids = itertools.count(1)
        self._reading: asyncio.Task[None]
        self._alive = True
        self._closing = False
        self._kill_reason: str | None = None

    @classmethod
    async def start(cls, model_folder: Path, *, digest_folder: Path, limits: RunnerLimits, on_crash: OnCrash) -> Runner:
        """Start a process and wait until its model is ready.

        Raises:
            ModelLoadError: it could not load the model, or not in time.
        """
        try:
            process, ours = await RunnerProcess.start(model_folder, digest_folder=digest_folder)
        except OSError as error:
            raise ModelLoadError(f"a runner could not be started: {error}") from error
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            await process.end(deadline_s=0)
            raise
        runner = cls(process, reader, writer, limits)
        try:
            runner.facts = await runner._wait_until_ready()
        except BaseException:
            writer.close()
            await process.end(deadline_s=0)
            raise
        runner._reading = asyncio.create_task(runner._read(on_crash), name=f"runner-{process.pid}")
        return runner

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._alive and not self._closing and self._kill_reason is None

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """A request; whatever comes for it after the block is ignored."""
        exchange = Exchange(self, next(self._ids))
        self._exchanges[exchange.id] = exchange
        try:
            yield exchange
        finally:
            del self._exchanges[exchange.id]

    async def send(self, frame: ServerFrame) -> None:
        """Write a frame and wait until the runner's reader keeps up."""
        if not self.alive:
            raise EngineUnavailable("the model's runner has ended")
        self._write(frame)
        try:
            async with asyncio.timeout(self.limits.stall_timeout_s):
                await self._writer.drain()
        except OSError as error:
            raise EngineUnavailable("the model's runner has ended") from error
        except TimeoutError:
            self.kill("it took no frames")
            raise EngineUnavailable("the model's runner hung and was stopped") from None

    def cancel(self, request_id: int) -> None:
        """Stop a generation; does not wait, so that it works while its caller is being cancelled."""
        if self.alive:
            self._write(Cancel(id=request_id))

    async def ping(self) -> Pong:
        """Ask the thread that evaluates; it answers between two evaluations."""
        with self.exchange() as exchange:
            await exchange.send(Ping(id=exchange.id))
            while not isinstance(frame := await exchange.receive(), Pong):
                pass
            return frame

    def kill(self, reason: str) -> None:
        """End the process at once; its requests fail as soon as its socket closes."""
        self._kill_reason = self._kill_reason or reason
        self._process.kill()

    async def aclose(self, deadline_s: float) -> None:
        """End the process: by asking, after the deadline by force. Requests that it still has are failed."""
        self._closing = True
        self._write(Shutdown())
        await self._process.end(deadline_s=deadline_s)
        # The socket closed with the process; the bound is for a process that even SIGKILL did not end.
        await asyncio.wait({self._reading}, timeout=_CLOSE_S)
        self._reading.cancel()
        await asyncio.wait({self._reading})

    def _write(self, frame: ServerFrame) -> None:
        """Write, unless the socket is closed: asyncio would drop the bytes, uvloop raises RuntimeError."""
        if not self._writer.is_closing():
            self._writer.write(encode(frame))

    async def _wait_until_ready(self) -> RunnerFacts:
        try:
            async with asyncio.timeout(self.limits.load_timeout_s):
                frame = await read_runner_frame(self._reader)
        except TimeoutError:
            raise ModelLoadError(
                f"loading took more than {self.limits.load_timeout_s:g} s; allow more or choose a smaller model"
            ) from None
        except (ProtocolError, OSError):
            frame = None
        match frame:
            case Ready(facts=facts):
                return facts
            case LoadFailed(reason=reason):
                raise ModelLoadError(reason)
        await self._process.end(deadline_s=1.0)
        raise ModelLoadError(f"the runner {self._describe_end()} while it loaded the model")

    async def _read(self, on_crash: OnCrash) -> None:
        """Hand out frames until the runner ends, then end what it left behind."""
        try:
            while (frame := await read_runner_frame(self._reader)) is not None:
                self._hand_out(frame)
        except ProtocolError as error:
            self._kill_reason = self._kill_reason or str(error)
        except OSError as error:
            self._kill_reason = self._kill_reason or f"its socket broke: {error}"
        self._alive = False
        self._writer.close()
        if not self._closing:
            await self._process.end(deadline_s=0 if self._kill_reason else 1.0)
        requests = list(self._exchanges.values())
        how = "was stopped" if self._closing else self._describe_end(with_last_words=False)
        for exchange in requests:
            exchange.heard(EngineUnavailable(f"the model's runner {how} while it worked on the request"))
        if not self._closing:
            await on_crash(f"the runner {self._describe_end()}", len(requests))

    def _hand_out(self, frame: RunnerFrame) -> None:
        match frame:
            case Rendered() | Explained() | Counted() | Progress() | Delta() | Finished() | Failed() | Pong():
                exchange = self._exchanges.get(frame.id)
                if exchange is not None:
                    exchange.heard(frame)
            case Ready() | LoadFailed():
                raise ProtocolError(f"an unexpected {type(frame).__name__} frame")

    def _describe_end(self, *, with_last_words: bool = True) -> str:
        how = f"was killed because {self._kill_reason}" if self._kill_reason else self._process.how_it_ended()
        words = self._process.last_words() if with_last_words else ""
        return f"{how} ({words})" if words else how
