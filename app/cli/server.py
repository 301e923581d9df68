"""A running server, asked by a command: one that is not there, or refuses, ends the command with what it said."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer
from rich.markup import escape

from manent.app.cli.output import ExitCode, fail, settings_or_fail, visible

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 300.0

Url = Annotated[str | None, typer.Option(help="Address of the server; without it, this machine's.")]


@contextmanager
def connected(url: str | None) -> Generator[httpx.Client, None, None]:
    """A client of the server at ``url``, or at the address that the settings have."""
    settings = settings_or_fail()
    base_url = url or f"http://{settings.host}:{settings.port}"
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    try:
        with httpx.Client(base_url=base_url, timeout=timeout, trust_env=False) as client:
            yield client
    except httpx.ConnectError:
        fail(f"no server answers at {base_url}; start one with `manent serve`", ExitCode.UNREACHABLE)
    except httpx.TimeoutException:
        fail(f"{base_url} did not answer in time", ExitCode.UNREACHABLE)
    except httpx.HTTPError as error:
        fail(f"the connection to {base_url} broke: {error}", ExitCode.UNREACHABLE)


def body_of(response: httpx.Response) -> dict[str, Any]:
    """What the server answered; an error of its ends the command, as usage where the request was at fault."""
    try:
        body: dict[str, Any] = response.json()
    except ValueError:
        fail(f"{response.url} answered {response.status_code}, and not as Manent does")
    if response.is_error:
        wrong = response.status_code == httpx.codes.BAD_REQUEST
        message = str(body.get("error", {}).get("message", body))
        fail(escape(visible(message)), ExitCode.USAGE if wrong else ExitCode.NO)
    return body
