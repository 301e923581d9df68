"""The life of a server: prepare, bind, recover, serve, drain."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import uvloop

from manent.adapters.auth.secret_file import AccessSecretUnusable
from manent.adapters.http.server import HttpServer
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.logs.setup import configure_logging
from manent.adapters.merkle.signer import KeyUnusable
from manent.adapters.store.migrate import MigrationError, upgrade
from manent.app.background import in_background
from manent.app.bootstrap import Manent, assembled
from manent.app.home import HomeError, only_server, prepare_folder
from manent.app.identity import NotOpenable
from manent.app.settings import Settings
from manent.app.transparency import issuing
from manent.domain.errors import StoreUnavailable

BACKLOG = 1024
CLOSE_COMPLETIONS_S = 2.0
CLOSE_RERUNS_S = 1.0
CLOSE_CONNECTIONS_S = 1.0
# Allocations, less what was freed, before the youngest are looked at; and so many looks before those of each older age.
GC_THRESHOLDS = (10_000, 20, 50)

UNUSABLE = (
    HomeError,
    MigrationError,
    RegistryError,
    StoreUnavailable,
    KeyUnusable,
    AccessSecretUnusable,
    NotOpenable,
)

_log = logging.getLogger("manent.serve")


class StartError(Exception):
    """The server cannot start; the message says why and what to do."""


def serve_until_stopped(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then drain; a second signal ends the process at once.

    Raises:
        StartError: a folder, the database, the registry or the port cannot be used.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    with ExitStack() as stack:
        try:
            prepare_folder(settings.home)
            if isinstance(settings.database, Path):
                prepare_folder(settings.database.parent)
                stack.enter_context(only_server(settings.database))
            upgrade(settings.database)
            listening = stack.enter_context(_bind(settings.host, settings.port))
            uvloop.run(_serve(settings, listening))
        except UNUSABLE as error:
            raise StartError(str(error)) from error


async def _serve(settings: Settings, listening: socket.socket) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    async with assembled(settings) as manent:
        who = await manent.who_may_come()
        interrupted = await manent.use_cases.close_interrupted.run()
        if interrupted:
            _log.warning("closed %d completions that an earlier server left open", interrupted)
        server = HttpServer(manent.web_app(), listening)
        await server.start()
        _quieten_garbage_collection()
        async with in_background(manent.background()):
            async with issuing(manent.transparency.checkpoints, settings.checkpoint_interval_s):
                _announce(settings, listening, who)
                await stop.wait()
            await _drain(settings, manent, server)
        await manent.use_cases.closing.close_kept()


async def _drain(settings: Settings, manent: Manent, server: HttpServer) -> None:
    _log.info("draining: %d completions are running", len(manent.use_cases.live))
    manent.use_cases.follow_log.close()  # tails have no end of their own: told first, they are gone when the rest is
    await server.stop_accepting()
    manent.use_cases.reruns.stop()
    left = await manent.use_cases.live.drain(finish_s=settings.drain_s, close_s=CLOSE_COMPLETIONS_S)
    left += await manent.use_cases.reruns.drain(close_s=CLOSE_RERUNS_S)
    if left:
        _log.error("%d completions and reruns were left open; the next start closes them as interrupted", left)
    await server.close(CLOSE_CONNECTIONS_S)


def _quieten_garbage_collection() -> None:
    """What was made until now stays, so that no collection need look at it; the rest is looked at less often.

    A chat makes thousands of objects and next to no cycles; a full look at everything that was imported takes a tenth
    of a second, during which nobody is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _on_signals(stop: asyncio.Event) -> None:
    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)  # the second one: at once; runners end with their socket, the next start closes the log
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} of {host} is taken by another program; stop it, or choose another port: "
                f"MANENT_PORT={port + 1} manent serve"
            ) from error
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; set MANENT_HOST and MANENT_PORT"
        ) from error
    listening.setblocking(False)  # noqa: FBT003 (the socket's own API)
    return listening


def _announce(settings: Settings, listening: socket.socket, who: str) -> None:
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    body = '{"model": "default", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}'
    sys.stdout.write(
        f"Manent is ready on {address} (Ctrl-C stops it; data in {settings.home}). Try:\n"
        f"curl {address}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
        f"{who}\n"
    )
    sys.stdout.flush()
