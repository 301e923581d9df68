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
from collections.abc import Sequence
from pathlib import Path

from manent.adapters.inference.openblas import runner_environment

_TAIL_MAX_BYTES = 8192
_REAP_POLL_S = 0.005
_TERMINATE_S = 1.0
_KILL_S = 5.0

_logger = logging.getLogger(__name__)


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

    @classmethod
    async def start(cls, model_folder: Path, *, digest_folder: Path) -> tuple[RunnerProcess, socket.socket]:
        """Start a runner; the socket is the server's end."""
        ours, theirs = socket.socketpair()
        # A socket, not a pipe: uvloop closes a pipe's descriptor twice, and by the second time it may be another's.
        stderr, its_stderr = socket.socketpair()
        starting = asyncio.ensure_future(asyncio.to_thread(_popen, theirs, its_stderr, model_folder, digest_folder))
        try:
            process = cls(await asyncio.shield(starting), stderr)
        except asyncio.CancelledError:
            # The thread cannot be cancelled, and the process that it starts must not be lost.
            ours.close()
            await cls(await starting, stderr).end(deadline_s=0)
            raise
        except OSError:
            ours.close()
            stderr.close()
            raise
        finally:
            theirs.close()
            its_stderr.close()
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
        """Wait for the process to end by itself, make it end when it does not, and reap it."""
        ended = await self._wait(deadline_s)
        for insist, patience_s in ((self._process.terminate, _TERMINATE_S), (self._process.kill, _KILL_S)):
            if ended:
                break
            with contextlib.suppress(ProcessLookupError):
                insist()
            ended = await self._wait(patience_s)
        if not ended:  # pragma: no cover (a process that the kernel cannot end)
            _logger.error("runner %d does not end, not even by SIGKILL", self.pid)
        if (tail_task := self._tail_task) is not None:
            # What it wrote before it ended is in the pipe already; a grandchild could hold the pipe open for ever.
            await asyncio.wait({tail_task}, timeout=1.0)
            tail_task.cancel()
            await asyncio.wait({tail_task})
        else:
            self._stderr.close()

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

    def last_words(self) -> str:
        """The last line that it wrote to stderr: of a traceback, the exception."""
        lines = self._tail.decode("utf-8", "replace").split("\n")
        return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")

    async def _wait(self, deadline_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + deadline_s
        while self._process.poll() is None:
            if loop.time() >= until:
                return False
            await asyncio.sleep(_REAP_POLL_S)
        return True

    async def _keep_tail(self) -> None:
        """Read stderr until it closes, and keep its end: the runner must not block on a full pipe."""
        reader, writer = await asyncio.open_unix_connection(sock=self._stderr, limit=_TAIL_MAX_BYTES)
        try:
            while piece := await reader.read(_TAIL_MAX_BYTES):
                self._tail = (self._tail + piece)[-_TAIL_MAX_BYTES:]
        except OSError as error:
            _logger.debug("the last words of runner %d were lost: %s", self.pid, error)
        finally:
            writer.close()


def _popen(
    theirs: socket.socket, stderr: socket.socket, model_folder: Path, digest_folder: Path
) -> subprocess.Popen[bytes]:
    command: Sequence[str] = (
        sys.executable,
        "-m",
        "manent.adapters.inference.runner",
        f"--fd={theirs.fileno()}",
        f"--model={model_folder}",
        f"--digest-folder={digest_folder}",
    )
    return subprocess.Popen(
        command,
        env=runner_environment(os.environ),
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr.fileno(),
        # Out of the terminal's foreground group: Ctrl-C is for the server, also before the runner can ignore it.
        process_group=0,
    )
