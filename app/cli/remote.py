"""Asking the running server: one request, one JSON answer, and the exit codes of what can go wrong."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx

from manent.app.cli.output import ExitCode, fail
from manent.app.settings import Settings

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0


def ask(
    settings: Settings, method: str, path: str, *, url: str | None = None, timeout_s: float = ANSWER_TIMEOUT_S
) -> dict[str, Any]:
    """What the server answers; ends the command with 3 where no server does, and with 1 where it refuses."""
    base_url = server_url(settings, url)
    try:
        with httpx.Client(
            base_url=base_url, timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S), trust_env=False
        ) as client:
            response = client.request(method, path)
    except httpx.ConnectError:
        fail(f"no server answers at {base_url}; start one with `manent serve`", ExitCode.UNREACHABLE)
    except httpx.TimeoutException:
        fail(f"{base_url} did not answer in time", ExitCode.UNREACHABLE)
    except httpx.HTTPError as error:
        fail(f"the connection to {base_url} broke: {error}", ExitCode.UNREACHABLE)
    try:
        body: dict[str, Any] = response.json()
    except ValueError:
        fail(f"{response.url} answered {response.status_code}, and not as Manent does", ExitCode.UNREACHABLE)
    if response.is_error:
        fail(str(body.get("error", {}).get("message", body)))
    return body


def answers(settings: Settings, url: str | None = None) -> bool:
    """Whether a server answers."""
    try:
        httpx.get(f"{server_url(settings, url)}/health/live", timeout=CONNECT_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return False
    return True


def server_url(settings: Settings, url: str | None) -> str:
    """The server's address: the one that is given, or this machine's."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return url or f"http://{host}:{settings.port}"


def model_path(model: str, action: str = "") -> str:
    """The path of a model, or of what is done with it; ids may have slashes in them."""
    return f"/v1/models/{quote(model, safe='/')}{action and f'/{action}'}"
