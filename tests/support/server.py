"""A real server: ``manent serve`` in a process of its own, on a home of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import psutil
from openai import OpenAI

from tests.support.command_server import ForkedProcess, forking_command
from tests.support.runners import runners_of

READY_S = 60.0
READY = re.compile(r"Manent is ready on (https?://\S+|unix:\S+)")


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This process's environment with nothing of Manent's in it but ``home`` and ``settings``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MANENT_")}
    given = {f"MANENT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**clean, "MANENT_HOME": str(home), "MANENT_PORT": "0", "PYTHONUNBUFFERED": "1", **given}


def manent_process(*arguments: str, home: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own to its end: for ``serve``, and for what only a process does."""
    return subprocess.run(
        [forking_command()[0], *arguments],
        env=environment(home, **settings),
        cwd=home if home.is_dir() else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Server:
    """A running ``manent serve``."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self._lines: SimpleQueue[str] = SimpleQueue()
        self.output: list[str] = []
        self._clients: list[OpenAI] = []
        self.process = self.start(environment(home, **settings))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self._wait_until_ready()

    def start(self, environment: dict[str, str]) -> ForkedProcess | subprocess.Popen[str]:
        """Its process: forked from one that has its imports behind it, which are most of a start."""
        return ForkedProcess("serve", env=environment, cwd=self.home)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.process.pid

    def client(self, **options: object) -> OpenAI:
        """The official client, pointed here; it is closed with the server."""
        defaults: dict[str, object] = {"max_retries": 0, "timeout": 120.0}
        client = OpenAI(base_url=f"{self.address}/v1", api_key="any", **{**defaults, **options})  # type: ignore[arg-type]  # by name
        self._clients.append(client)
        return client

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self, number: signal.Signals = signal.SIGINT, *, timeout_s: float = 15.0) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=timeout_s)

    def runner_pids(self) -> list[int]:
        """Process ids of the runners that this server started."""
        return runners_of(self.pid)

    def close(self) -> None:
        """End it, whatever state it is in."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            children = psutil.Process(self.pid).children(recursive=True)
            self.kill()
            _, alive = psutil.wait_procs(children, timeout=5)
            for child in alive:  # one that a test stopped ends no other way, and would keep the output open for ever
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        self._reader.join(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                line = self._lines.get(timeout=0.1)
            except Empty:
                continue
            if found := READY.match(line):
                return found[1]
        self.close()
        raise AssertionError("the server did not get ready:\n" + "".join(self.output))


class StartedServer(Server):
    """A server that is started as anybody starts it."""

    def start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        """A new Python."""
        return subprocess.Popen(
            [sys.executable, "-m", "manent.app", "serve"],
            env=environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def serving(home: Path, **settings: object) -> Iterator[Server]:
    """A server for as long as the context lasts."""
    server = Server(home, **settings)
    try:
        yield server
    finally:
        server.close()


def prepare_home(home: Path, starter_model: Path) -> Path:
    """A home with the starter model in it (a link: nothing is copied)."""
    (home / "models").mkdir(parents=True)
    (home / "models" / starter_model.name).symlink_to(starter_model)
    return home
