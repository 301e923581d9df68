"""The life of a server: prepare, bind, recover, serve, drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from manent.adapters.auth.secret_file import AccessSecretUnusable
from manent.adapters.http.server import HttpServer
from manent.adapters.http.tls import Certificate, CertificateUnusable
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.logs.setup import configure_logging, fill_standard_streams, log_defects, stop_logging
from manent.adapters.merkle.signer import KeyUnusable
from manent.adapters.store.migrate import MigrationError, upgrade
from manent.app.background import in_background
from manent.app.bootstrap import Manent, assembled
from manent.app.home import HomeError, only_server, prepare_folder
from manent.app.identity import NotOpenable
from manent.app.listening import CannotListen, address_of, certificate_of, listening, monitoring_port
from manent.app.settings import Settings
from manent.app.tracing import TracingUnavailable
from manent.app.transparency import issuing
from manent.domain.errors import StoreUnavailable
from manent.domain.extensions import PluginError
from manent.domain.safe_errors import safe_name

CLOSE_COMPLETIONS_S = 2.0
CLOSE_RERUNS_S = 1.0
CLOSE_CONNECTIONS_S = 1.0
# Allocations, less what was freed, before the youngest are looked at; and so many looks before those of each older age.
GC_THRESHOLDS = (50_000, 5, 50)

START_ERRORS = (
    HomeError,
    MigrationError,
    PluginError,
    RegistryError,
    StoreUnavailable,
    KeyUnusable,
    CannotListen,
    CertificateUnusable,
    TracingUnavailable,
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
    fill_standard_streams()
    configure_logging(level=settings.log_level, log_format=settings.log_format, levels=settings.logger_levels)
    log_defects()
    with ExitStack() as stack:
        stack.callback(stop_logging)
        try:
            prepare_folder(settings.home)
            if isinstance(settings.database, Path):
                prepare_folder(settings.database.parent)
                stack.enter_context(only_server(settings.database))
            upgrade(settings.database)
            bound = stack.enter_context(listening(settings))
            monitored = stack.enter_context(monitoring_port(settings))
            uvloop.run(_serve(settings, bound, monitored, certificate_of(settings)))
        except START_ERRORS as error:
            raise StartError(str(error)) from error


async def _serve(
    settings: Settings, bound: socket.socket, monitored: socket.socket | None, certificate: Certificate | None
) -> None:
    stop = asyncio.Event()
    _on_signals(stop)
    asyncio.get_running_loop().set_exception_handler(_log_defect)
    async with assembled(settings) as manent:
        who = await manent.who_may_come()
        interrupted = await manent.use_cases.close_interrupted.run()
        if interrupted:
            _log.warning("closed %d completions that an earlier server left open", interrupted)
        server = HttpServer(manent.web_app(), bound, tls=None if certificate is None else certificate.context)
        await server.start()
        _quieten_garbage_collection()
        watching = {} if certificate is None else {"watching the certificate": certificate.watch}
        async with in_background({**manent.background(), **watching}), _monitoring(manent, monitored):
            async with issuing(manent.transparency.checkpoints, settings.checkpoint_interval_s):
                _announce(settings, bound, who)
                await stop.wait()
            await _drain(settings, manent, server)
        await manent.use_cases.closing.close_kept()


@asynccontextmanager
async def _monitoring(manent: Manent, monitored: socket.socket | None) -> AsyncGenerator[None, None]:
    """Serve metrics and health on a port of their own, where there is one, also while the rest drains."""
    if monitored is None:
        yield
        return
    server = HttpServer(manent.monitoring_app(), monitored)
    await server.start()
    try:
        yield
    finally:
        await server.close(0)


async def _drain(settings: Settings, manent: Manent, server: HttpServer) -> None:
    """Let what runs end. Until it has, new connections are answered, so that a balancer reads why it is to go away."""
    _log.info("draining: %d completions are running", len(manent.use_cases.live))
    manent.use_cases.follow_log.close()  # tails have no end of their own: told first, they are gone when the rest is
    server.keep_no_connection()
    manent.use_cases.reruns.stop()
    left = await manent.use_cases.live.drain(finish_s=settings.drain_s, close_s=CLOSE_COMPLETIONS_S)
    left += await manent.use_cases.reruns.drain(close_s=CLOSE_RERUNS_S)
    await server.stop_accepting()
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


def _log_defect(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited. asyncio's own words for it have the exception's message, and so perhaps somebody's."""
    error = context.get("exception")
    task = context.get("task") or context.get("future")
    name = task.get_name() if isinstance(task, asyncio.Task) else "a callback"
    what = safe_name(error) if isinstance(error, BaseException) else str(context.get("message", "?"))
    _log.error("%s ended in %s, and nobody waited for it", name, what, exc_info=error)


def _announce(settings: Settings, bound: socket.socket, who: str) -> None:
    address = address_of(settings, bound)
    curl, url = "curl", address
    if settings.unix_socket is not None:
        curl, url = f"curl --unix-socket {address.removeprefix('unix:')}", "http://localhost"
    body = '{"model": "default", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32}'
    _say(
        f"Manent is ready on {address} (Ctrl-C stops it; data in {settings.home}). Try:\n"
        f"{curl} {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
        f"{who}\n"
    )


def _say(text: str) -> None:
    """Tell whoever started it; a standard output that is closed or full stops no server."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:
        _log.warning("standard output cannot be written: %s", safe_name(error))
