"""A ``manent`` that starts in milliseconds: forked from a process that has its imports behind it.

python -m tests.support.command_server SOCKET: each connection brings a command with its folder, environment and
standard streams, and is told its process id and, at its end, its exit code; eight bytes each.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from manent.app.cli import main
from manent.app.cli.root import build_app

REPOSITORY = Path(__file__).parents[2]
LATE = ("manent.adapters.analysis.query", "manent.app.serve")
"""What ``sql`` and ``serve`` import only when they are called."""
NUMBER_BYTES = 8
ASKING = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    told = server.makefile("rb").read()[{number_bytes}:]
    code = int.from_bytes(told, "little", signed=True) if told else 70
    sys.exit(code if code >= 0 else 128 - code)
"""


@contextmanager
def quick_command(file: Path) -> Iterator[str]:
    """Make ``file`` a ``manent``, for as long as the context lasts; the socket that it asks."""
    with tempfile.TemporaryDirectory(prefix="manent-") as folder:
        address = f"{folder}/socket"
        script = ASKING.format(python=sys.executable, address=address, number_bytes=NUMBER_BYTES)
        file.write_text(script, encoding="utf-8")
        file.chmod(0o755)
        command = [sys.executable, "-u", "-m", "tests.support.command_server", address]
        with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as serving:
            assert serving.stdout is not None
            assert serving.stdout.readline()
            try:
                yield address
            finally:
                serving.terminate()


@cache
def forking_command() -> tuple[Path, str]:
    """Such a ``manent``, and the socket that it asks, until this process ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    file = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="manent-command-"))) / "manent"
    return file, kept.enter_context(quick_command(file))


class ForkedProcess:
    """A command in a forked process: what tests use of ``subprocess.Popen``, with standard error in the output."""

    def __init__(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> None:
        _, address = forking_command()
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self.stdout: TextIO = os.fdopen(reading, encoding="utf-8")
        self._told = socket.socket(socket.AF_UNIX)
        self._told.connect(address)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 (no path of ours)
            socket.send_fds(self._told, [b"."], [nothing.fileno(), writing, writing])
        os.close(writing)
        self._told.sendall(json.dumps([arguments, str(cwd), dict(env)]).encode())
        self._told.shutdown(socket.SHUT_WR)
        self.pid = self._number()

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(timeout=0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, which is waited for."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("manent", timeout or 0)
            self.returncode = self._number()
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        told = self._told.recv(NUMBER_BYTES, socket.MSG_WAITALL)
        assert len(told) == NUMBER_BYTES, "the process that forks is gone"
        return int.from_bytes(told, "little", signed=True)


def serve(address: str) -> None:
    """Fork a process for each command; returns in each of them, with the command before it."""
    build_app(None)
    for late in LATE:
        import_module(late)
    running: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select.select([listening.fileno(), woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                reap(running)
            if listening.fileno() not in ready:
                continue
            connection, _ = listening.accept()
            if (pid := os.fork()) == 0:
                break
            running[pid] = connection
            tell(connection, pid)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(woken)
    os.close(wake)
    for other in running.values():
        other.close()
    prepare(connection)


def reap(running: dict[int, socket.socket]) -> None:
    """Tell of all that ended."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            connection = running.pop(ended[0])
            tell(connection, os.waitstatus_to_exitcode(ended[1]))
            connection.close()


def tell(connection: socket.socket, number: int) -> None:
    """Send a number to whoever asked for the command, if there is anybody left."""
    with suppress(OSError):
        connection.sendall(number.to_bytes(NUMBER_BYTES, "little", signed=True))


def prepare(connection: socket.socket) -> None:
    """Become the process of the command that a connection brings."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection, connection.makefile("rb") as asking:
        asked: Any = json.loads(asking.read())
    arguments, folder, environment = asked
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = ["manent", *arguments]


if __name__ == "__main__":
    serve(sys.argv[1])
    main()
