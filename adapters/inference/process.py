"""The operating system's side of a runner: starting the process, its last words, and its certain end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from manent.adapters.inference.openblas import runner_environment
from manent.adapters.inference.prefix_settings import PrefixOptions
from manent.adapters.inference.runner_log import MARK, RunnerLines
from manent.domain.embedding import ModelType

_TAIL_MAX_BYTES = 8192
_TAIL_S = 1.0
_START_S = 30.0
_REAP_POLL_S = 0.005
_TERMINATE_S = 1.0
_KILL_S = 5.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCommand:
    """What a runner is started with: the model's type and folder, where digests are remembered, an adapter's folder.

    Without ``prefix`` it has no prefix cache. ``draft``, ``shards`` and ``hosts`` are as in ``RegisteredModel``.
    """

    model_folder: Path
    digest_folder: Path
    type: ModelType = ModelType.LLM
    adapter: Path | None = None
    prefix: PrefixOptions | None = None
    draft: Path | None = None
    draft_tokens: int = 1
    shards: int = 1
    hosts: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are given besides: those that share cores do not each start threads for all of them."""
        threads = max(1, (os.cpu_count() or 1) // self.shards)
        return {} if self.shards == 1 or self.hosts is not None else {"OPENBLAS_NUM_THREADS": str(threads)}

    @property
    def arguments(self) -> list[str]:
        """The command line, less the socket."""
        adapter = [] if self.adapter is None else [f"--adapter={self.adapter}"]
        draft = [] if self.draft is None else [f"--draft={self.draft}", f"--draft-tokens={self.draft_tokens}"]
        return [
            sys.executable,
            "-m",
            "manent.adapters.inference.runner",
            f"--type={self.type}",
            f"--model={self.model_folder}",
            f"--digest-folder={self.digest_folder}",
            *adapter,
            *draft,
            *([] if self.shards == 1 else [f"--shards={self.shards}"]),
            *([] if self.hosts is None else [f"--hosts={self.hosts}"]),
            *([] if self.prefix is None else self.prefix.arguments),
        ]


class RunnerProcess:
    """A running child and the socket to it. Whoever starts one calls ``end``, which always reaps it.

    It is a plain ``subprocess.Popen`` and not asyncio's: that works on every event loop, and the child's end shows
    on the socket anyway, so nothing else has to watch for it.
    """

    def __init__(self, process: subprocess.Popen[bytes], stderr: socket.socket) -> None:
        self._process = process
        self._stderr = stderr
        self._tail = bytearray()
        self._tail_task: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: RunnerCommand) -> tuple[RunnerProcess, socket.socket]:
        """Start a runner; the socket is the server's end.

        Raises:
            OSError: the system starts no process, or not in time.
        """
        ours, theirs = socket.socketpair()
        # A socket, not a pipe: uvloop closes a pipe's descriptor twice, and by the second time it may be another's.
        stderr, its_stderr = socket.socketpair()
        birth = _Birth(command, theirs, its_stderr)
        try:
            process = cls(await birth.wait(_START_S), stderr)
        except BaseException:
            ours.close()
            stderr.close()
            raise
        process._tail_task = asyncio.create_task(process._keep_tail())
        return process, ours

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: the socket closes, and whoever reads from it takes care of the rest."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def end(self, *, deadline_s: float) -> None:
        """Wait for the process to end by itself, make it end when it does not, and reap it.

        It takes at most the deadline and eight seconds. A caller that is cancelled does not keep it from happening.
        """
        self._ending = asyncio.create_task(self._end(deadline_s), name=f"end-{self.pid}")
        await asyncio.shield(self._ending)

    def how_it_ended(self) -> str:
        """The exit status in words."""
        code = self._process.poll()
        if code is None:
            return "is still running"
        if code >= 0:
            return f"ended with exit status {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        return f"was killed by {name}{hint}"

    @property
    def killed_by_signal(self) -> bool:
        """Whether SIGKILL ended it: by ``kill``, or by the system when memory runs out."""
        return self._process.poll() == -signal.SIGKILL

    def last_words(self) -> str:
        """The last line that it wrote to stderr: of a traceback, the exception."""
        lines = [line for line in self._tail.split(b"\n") if line.strip() and not line.startswith(MARK)]
        return lines[-1].decode("utf-8", "replace").strip()[:500] if lines else ""

    async def _end(self, deadline_s: float) -> None:
        ended = await self.wait(deadline_s)
        for insist, patience_s in ((self._process.terminate, _TERMINATE_S), (self._process.kill, _KILL_S)):
            if ended:
                break
            with contextlib.suppress(ProcessLookupError):
                insist()
            ended = await self.wait(patience_s)
        if not ended:  # pragma: no cover (a process that the kernel cannot end)
            _logger.error("runner %d does not end, not even by SIGKILL", self.pid)
        if (tail_task := self._tail_task) is not None:
            # What it wrote before it ended is in the pipe already; a grandchild could hold the pipe open for ever.
            await asyncio.wait({tail_task}, timeout=_TAIL_S)
            tail_task.cancel()
            await asyncio.wait({tail_task}, timeout=_TAIL_S)

    async def wait(self, deadline_s: float) -> bool:
        """Whether it ends by itself within so many seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        while self._process.poll() is None:
            if loop.time() >= until:
                return False
            await asyncio.sleep(_REAP_POLL_S)
        return True

    async def _keep_tail(self) -> None:
        """Read stderr until it closes, tell on what is meant for the log, and keep the end of the rest.

        The runner must not block on a full pipe.
        """
        reader, writer = await asyncio.open_unix_connection(sock=self._stderr, limit=_TAIL_MAX_BYTES)
        lines = RunnerLines(self.pid)
        try:
            while piece := await reader.read(_TAIL_MAX_BYTES):
                self._tail = (self._tail + piece)[-_TAIL_MAX_BYTES:]
                lines.feed(piece)
        except OSError as error:
            _logger.debug("the last words of runner %d were lost: %s", self.pid, error)
        finally:
            writer.close()


class _Birth:
    """A process being started, on a thread of its own: what asks the system for it may block for as long as it likes.

    Neither the loop nor the end of this process waits for that thread. A process that nobody waits for any more when
    it is there is killed and reaped by the thread.
    """

    def __init__(self, command: RunnerCommand, theirs: socket.socket, stderr: socket.socket) -> None:
        self._command = command
        self._sockets = theirs, stderr
        self._born: Future[subprocess.Popen[bytes]] = Future()
        Thread(target=self._run, name="runner-start", daemon=True).start()

    async def wait(self, timeout_s: float) -> subprocess.Popen[bytes]:
        """The process; OSError where there is none within ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(self._born)
        except TimeoutError:
            self._abandon()
            raise OSError(f"the system started no process within {timeout_s:g} s") from None
        except asyncio.CancelledError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Have the process ended, by the thread that starts it or, where it is there already, by another."""
        if not self._born.cancel():
            self._born.add_done_callback(_end_abandoned)

    def _run(self) -> None:
        theirs, stderr = self._sockets
        try:
            process = _popen(self._command, theirs, stderr)
        except BaseException as error:  # noqa: BLE001 (handed over to whoever waits)
            if self._born.set_running_or_notify_cancel():
                self._born.set_exception(error)
        else:
            if self._born.set_running_or_notify_cancel():
                self._born.set_result(process)
            else:
                _end_now(process)
        finally:
            theirs.close()
            stderr.close()


def _end_abandoned(born: Future[subprocess.Popen[bytes]]) -> None:
    """End a process that was there a moment before nobody waited for it any more."""
    if born.exception() is None:
        Thread(target=_end_now, args=(born.result(),), name="runner-end", daemon=True).start()


def _end_now(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _popen(command: RunnerCommand, theirs: socket.socket, stderr: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*command.arguments, f"--fd={theirs.fileno()}"],
        env=command.environment | runner_environment(os.environ),
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr.fileno(),
        # Out of the terminal's foreground group: Ctrl-C is for the server, also before the runner can ignore it.
        process_group=0,
    )
