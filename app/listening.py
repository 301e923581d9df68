"""The socket a server listens on: a port of an address, or a path."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from manent.adapters.http.tls import Certificate
from manent.app.settings import Settings

BACKLOG = 1024
OTHER_FILES = 512
"""Files that are open beside connections: the database, models, sockets of runners, logs."""


class CannotListen(Exception):
    """The address or the path cannot be listened on; the message says what to do."""


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens where the settings say.

    Raises:
        CannotListen: it is taken, or not ours to use.
    """
    _allow_files(settings.connections_max + OTHER_FILES)
    if settings.unix_socket is None:
        with _bound(settings.host, settings.port) as bound:
            yield bound
        return
    path = settings.unix_socket.expanduser().absolute()
    with _bound_path(path, int(settings.unix_socket_mode, 8)) as bound:
        try:
            yield bound
        finally:
            with suppress(FileNotFoundError):
                path.unlink()


def monitoring_port(settings: Settings) -> AbstractContextManager[socket.socket | None]:
    """The port for monitoring alone, if there is one.

    Raises:
        CannotListen: it is taken, or not ours to use.
    """
    if settings.metrics_port is None:
        return nullcontext()
    return _bound(settings.metrics_host, settings.metrics_port, prefix="MANENT_METRICS")


def certificate_of(settings: Settings) -> Certificate | None:
    """What HTTPS is served with, if it is.

    Raises:
        CertificateUnusable: the files cannot be read, or do not belong together.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate.expanduser(), settings.tls_key.expanduser())


def address_of(settings: Settings, bound: socket.socket) -> str:
    """Where clients find the server."""
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket.expanduser().absolute()}"
    scheme = "http" if settings.tls_certificate is None else "https"
    host, port = bound.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _bound(host: str, port: int, *, prefix: str = "MANENT") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(
                f"port {port} of {host} is taken by another program; stop it, or choose another port: "
                f"{prefix}_PORT={port + 1} manent serve"
            ) from error
        raise CannotListen(
            f"cannot listen on {host}:{port}: {error.strerror}; set {prefix}_HOST and {prefix}_PORT"
        ) from error
    bound.setblocking(False)  # noqa: FBT003 (the socket's own API)
    return bound


def _bound_path(path: Path, mode: int) -> socket.socket:
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Nobody may connect before the permissions are what they should be.
    umask = os.umask(0o177)
    try:
        bound.bind(str(path))
        path.chmod(mode)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise CannotListen(f"cannot listen on {path}: {error.strerror or error}; set MANENT_UNIX_SOCKET") from error
    finally:
        os.umask(umask)
    bound.setblocking(False)  # noqa: FBT003 (the socket's own API)
    return bound


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that was killed; one that somebody listens on, and any other file, stays."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise CannotListen(f"{path} is there and no socket; set MANENT_UNIX_SOCKET to another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise CannotListen(f"cannot listen on {path}: {error.strerror}; set MANENT_UNIX_SOCKET") from error
    raise CannotListen(f"another program listens on {path}; stop it, or set MANENT_UNIX_SOCKET to another path")


def _allow_files(wanted: int) -> None:
    """Raise this process's own bound on open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
