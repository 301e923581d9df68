"""A runner as the server sees it: requests go in, each one's frames come out, and its end fails them all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator

from manent.adapters.inference.embedding_frames import Embedded
from manent.adapters.inference.exchange import Exchange, LoadOutOfMemory, RunnerKilled, RunnerLimits
from manent.adapters.inference.memory import process_bytes
from manent.adapters.inference.process import RunnerCommand, RunnerProcess
from manent.adapters.inference.protocol import (
    Cancel,
    Counted,
    Delta,
    Explained,
    Failed,
    Finished,
    Forget,
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
from manent.domain.safe_errors import OUT_OF_MEMORY

OnCrash = Callable[[str, int], Awaitable[None]]
"""Called with the reason and the number of requests that were failed with the runner."""
OnProcess = Callable[[int], None]
"""Called with the process's id as soon as there is one, long before the model is ready."""

_CONNECT_S = 10.0
_CLOSE_S = 5.0
_DEATH_S = 1.0


class Runner:
    """A loaded model in a process of its own, and the requests that it is working on.

    ``prefix_bytes`` is what its prefix cache kept in memory at the last ping.
    """

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
        self._device_bytes = 0
        self.prefix_bytes = 0
        self._owed_since_s: float | None = None

    @classmethod
    async def start(
        cls, command: RunnerCommand, *, limits: RunnerLimits, on_crash: OnCrash, on_process: OnProcess
    ) -> Runner:
        """Start a process and wait until its model is ready.

        Raises:
            LoadOutOfMemory: there was not enough memory for it.
            ModelLoadError: it could not load the model, or not in time.
        """
        try:
            process, ours = await RunnerProcess.start(command)
        except OSError as error:
            raise ModelLoadError(f"a runner could not be started: {error}") from error
        on_process(process.pid)
        try:
            async with asyncio.timeout(_CONNECT_S):
                reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException as error:
            ours.close()
            await process.end(deadline_s=0)
            if isinstance(error, OSError):
                raise ModelLoadError(f"a runner could not be spoken to: {error!r}") from error
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

    @property
    def held_bytes(self) -> int:
        """What it has in memory: what the system shows or, where that is more, the device's allocator at the last ping.

        Of what Metal holds, macOS may not count everything as the process's.
        """
        others_bytes = sum(map(process_bytes, self.facts.other_pids))
        return max(process_bytes(self.pid), self._device_bytes) + others_bytes

    @property
    def silent_s(self) -> float:
        """For how long the thread that evaluates has owed a ping an answer, or any other sign of life; else 0."""
        return 0.0 if self._owed_since_s is None else asyncio.get_running_loop().time() - self._owed_since_s

    @contextlib.contextmanager
    def exchange(self, *, is_request: bool = True) -> Iterator[Exchange]:
        """A request, or a question of our own; whatever comes for it after the block is ignored."""
        exchange = Exchange(self, next(self._ids), is_request=is_request)
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

    def forget(self, tenant: str, conversation: str | None) -> None:
        """Have what the prefix cache keeps of a conversation, or of a whole tenant, dropped; does not wait."""
        if self.alive:
            self._write(Forget(id=next(self._ids), tenant=tenant, conversation=conversation))

    async def ping(self) -> Pong:
        """Ask the thread that evaluates; it answers between two evaluations."""
        self._owed_since_s = asyncio.get_running_loop().time()
        try:
            with self.exchange(is_request=False) as exchange:
                await exchange.send(Ping(id=exchange.id))
                while not isinstance(frame := await exchange.receive(), Pong):
                    pass
                self._device_bytes = frame.memory_bytes
                self.prefix_bytes = frame.prefix.memory_bytes
                return frame
        finally:
            self._owed_since_s = None

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
        await asyncio.wait({self._reading}, timeout=_CLOSE_S)

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
                raise (LoadOutOfMemory if OUT_OF_MEMORY.search(reason) else ModelLoadError)(reason)
        await self._process.end(deadline_s=_DEATH_S)
        reason = f"the runner {self._describe_end()} while it loaded the model"
        raise (LoadOutOfMemory if self._killed_from_outside else ModelLoadError)(reason)

    async def _read(self, on_crash: OnCrash) -> None:
        """Hand out frames until the runner ends, then end what it left behind."""
        try:
            while (frame := await read_runner_frame(self._reader)) is not None:
                self._hand_out(frame)
        except ProtocolError as error:
            self._kill_reason = self._kill_reason or str(error)
        except OSError as error:
            self._alive = False
            # A process that dies with something unread resets its socket: what ended it is its exit status then.
            if not await self._process.wait(_DEATH_S):
                self._kill_reason = self._kill_reason or f"its socket broke: {error}"
        self._alive = False
        self._writer.close()
        if not self._closing:
            await self._process.end(deadline_s=0 if self._kill_reason else _DEATH_S)
        requests = list(self._exchanges.values())
        how = "was stopped" if self._closing else self._describe_end(with_last_words=False)
        ended = RunnerKilled if self._killed_from_outside else EngineUnavailable
        for exchange in requests:
            exchange.heard(ended(f"the model's runner {how} while it worked on the request"))
        if not self._closing:
            await on_crash(f"the runner {self._describe_end()}", sum(exchange.is_request for exchange in requests))

    def _hand_out(self, frame: RunnerFrame) -> None:
        match frame:
            case (
                Rendered()
                | Explained()
                | Counted()
                | Embedded()
                | Progress()
                | Delta()
                | Finished()
                | Failed()
                | Pong()
            ):
                exchange = self._exchanges.get(frame.id)
                if exchange is not None:
                    exchange.heard(frame)
                if self._owed_since_s is not None and isinstance(frame, Progress | Delta | Finished | Embedded):
                    self._evaluates()
            case Ready() | LoadFailed():
                raise ProtocolError(f"an unexpected {type(frame).__name__} frame")

    def _evaluates(self) -> None:
        """A request moved on: that is as good as an answer to the ping, which waits until its evaluation has ended."""
        self._owed_since_s = asyncio.get_running_loop().time()
        for exchange in self._exchanges.values():
            if not exchange.is_request:
                exchange.lives()

    @property
    def _killed_from_outside(self) -> bool:
        return not self._closing and self._kill_reason is None and self._process.killed_by_signal

    def _describe_end(self, *, with_last_words: bool = True) -> str:
        how = f"was killed because {self._kill_reason}" if self._kill_reason else self._process.how_it_ended()
        words = self._process.last_words() if with_last_words else ""
        return f"{how} ({words})" if words else how
