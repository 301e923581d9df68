"""A ``manent`` that starts in milliseconds: forked from a process that has its imports behind it.

python -m tests.support.command_server SOCKET: each connection brings a command with its folder, environment and
standard streams, and is told its exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from manent.app.cli import main
from manent.app.cli.root import build_app

REPOSITORY = Path(__file__).parents[2]
ASKING = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.makefile().read() or 70))
"""


@contextmanager
def quick_command(file: Path) -> Iterator[None]:
    """Make ``file`` a ``manent``, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="manent-") as folder:
        address = f"{folder}/socket"
        file.write_text(ASKING.format(python=sys.executable, address=address), encoding="utf-8")
        file.chmod(0o755)
        command = [sys.executable, "-m", "tests.support.command_server", address]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as serving:
            assert serving.stdout is not None
            assert serving.stdout.readline()
            try:
                yield
            finally:
                serving.terminate()


@cache
def forking_command() -> Path:
    """Such a ``manent``, until this process ends."""
    kept = ExitStack()
    atexit.register(kept.close)
    file = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="manent-command-"))) / "manent"
    kept.enter_context(quick_command(file))
    return file


def serve(address: str) -> NoReturn:
    """Fork a process for each command."""
    build_app(None)  # imports what commands need, but for what `sql` and `serve` import when they are called
    for late in ("manent.adapters.analysis.query", "manent.app.serve"):
        import_module(late)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        os.write(1, b"ready\n")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> NoReturn:
    """Run the command that a connection brings, and end this process."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    asked: Any = json.loads(connection.makefile("rb").read())
    arguments, folder, environment = asked
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["manent", *arguments]
    connection.sendall(str(exit_code()).encode())
    os._exit(0)


def exit_code() -> int:
    """What the command ends with."""
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 (the boundary of the command: Python would do the same)
        traceback.print_exc()
        code = 1
    with suppress(OSError):
        sys.stdout.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    serve(sys.argv[1])
