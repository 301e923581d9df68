"""A running server, asked by a command: one that is not there, or refuses, ends the command with what it said."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer

from manent.app.cli.credentials import credential_for
from manent.app.cli.output import ExitCode, fail, settings_or_fail
from manent.app.settings import Settings

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 300.0

Url = Annotated[str | None, typer.Option(help="Address of the server; without it, this machine's.")]


class Refused(Exception):
    """The server refused, or ended an answer with an error; ``code`` is what the command ends with."""

    def __init__(self, message: str, code: ExitCode = ExitCode.NO) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def connected(url: str | None, *, timeout_s: float = READ_TIMEOUT_S) -> Generator[httpx.Client, None, None]:
    """A client of the server at ``url``, or at the address that the settings have; what fails ends the command."""
    settings = settings_or_fail()
    base_url, transport = (url, None) if url else (url_of(settings), _way_to(settings))
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    auth = credential_for(settings, url)
    try:
        with httpx.Client(
            base_url=base_url, timeout=timeout, trust_env=False, transport=transport, auth=auth
        ) as client:
            yield client
    except Refused as refused:
        fail(str(refused), refused.code)
    except httpx.ConnectError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fail(f"the server at {base_url} has another certificate than expected: {error}", ExitCode.UNREACHABLE)
        fail(f"no server answers at {base_url}; start one with `manent serve`", ExitCode.UNREACHABLE)
    except httpx.TimeoutException:
        fail(f"{base_url} did not answer in time", ExitCode.UNREACHABLE)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        fail(f"{base_url!r} is not the address of a server, as http://127.0.0.1:8080 is: {error}", ExitCode.USAGE)
    except httpx.HTTPError as error:
        fail(f"the connection to {base_url} broke: {error}", ExitCode.UNREACHABLE)


def ask(client: httpx.Client, method: str, path: str, **more: Any) -> dict[str, Any]:
    """What the server answers; raises as ``body_of``."""
    return body_of(client.request(method, path, **more))


def body_of(response: httpx.Response) -> dict[str, Any]:
    """What the server answered.

    Raises:
        Refused: it refused; as usage where the request was at fault, as unreachable where it is no Manent.
    """
    strange = Refused(f"{response.url} answered {response.status_code}, and not as Manent does", ExitCode.UNREACHABLE)
    try:
        body: Any = response.json()
    except ValueError:
        raise strange from None
    if not isinstance(body, dict):
        raise strange
    if response.is_error:
        wrong = response.status_code == httpx.codes.BAD_REQUEST
        raise Refused(error_message(body), ExitCode.USAGE if wrong else ExitCode.NO)
    return body


def error_message(body: dict[str, Any]) -> str:
    """What an answer, or an event of a stream, says went wrong."""
    error = body.get("error")
    return str(error.get("message", error) if isinstance(error, dict) else body)


def answers(url: str | None) -> bool:
    """Whether a server answers at ``url``, or at the address that the settings have."""
    transport = None if url else _way_to(settings_or_fail())
    try:
        with httpx.Client(timeout=CONNECT_TIMEOUT_S, trust_env=False, transport=transport) as client:
            client.get(f"{url or url_of(settings_or_fail())}/health/live")
    except httpx.HTTPError:
        return False
    return True


def url_of(settings: Settings) -> str:
    """The address of this machine's server; one that listens on all of them is reached on loopback."""
    if settings.unix_socket is not None:
        return "http://localhost"
    scheme = "http" if settings.tls_certificate is None else "https"
    if settings.host in {"0.0.0.0", "::"}:  # noqa: S104 (compared with, not listened on)
        return f"{scheme}://{'127.0.0.1' if settings.host == '0.0.0.0' else '[::1]'}:{settings.port}"  # noqa: S104 (the same)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{settings.port}"


def _way_to(settings: Settings) -> httpx.HTTPTransport | None:
    """How this machine's server is reached: through its socket, or by TLS with its very certificate.

    The certificate's names are others than this machine's own, so it is compared as a whole and not by name.
    """
    if settings.unix_socket is not None:
        return httpx.HTTPTransport(uds=str(settings.unix_socket.expanduser().absolute()))
    if settings.tls_certificate is None:
        return None
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        trusting.load_verify_locations(settings.tls_certificate.expanduser())
    except OSError as error:
        fail(f"the certificate {settings.tls_certificate} cannot be read: {error}", ExitCode.USAGE)
    return httpx.HTTPTransport(verify=trusting)
