"""What remote commands present: an API key of the environment, a file or standard input, or who they run as.

A key on the command line would be in everybody's list of processes, so it is never taken from there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path

import httpx

from manent.adapters.auth.secret_file import FILE_NAME, AccessSecret, AccessSecretUnusable
from manent.adapters.auth.tokens import NodeTokens
from manent.app.cli.output import ExitCode, fail
from manent.app.settings import Settings
from manent.app.system import SystemClock
from manent.domain.access import LOCAL_OPERATOR

VARIABLE = "MANENT_API_KEY"
KEY_CHARS_MAX = 8192

_given: list[str] = []


def take_key(source: str) -> None:
    """Read the key that ``--api-key`` names: ``-`` is standard input, ``@FILE`` a file.

    It is the root command's option, read before any command runs.
    """
    if source == "-":
        key = sys.stdin.readline(KEY_CHARS_MAX).strip()
    elif source.startswith("@"):
        try:
            key = Path(source[1:]).expanduser().read_text(encoding="utf-8")[:KEY_CHARS_MAX].strip()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{source[1:]} cannot be read: {error}", ExitCode.USAGE)
    else:
        fail(
            f"a key on the command line is shown to everybody by `ps`; set {VARIABLE}, or give --api-key @FILE, or "
            "--api-key - and the key on standard input",
            ExitCode.USAGE,
        )
    if not key:
        fail("--api-key found no key there", ExitCode.USAGE)
    _given.append(key)


def forget_key() -> None:
    """Forget the key of ``take_key``: the command is over."""
    _given.clear()


def credential_for(settings: Settings, url: str | None) -> httpx.Auth | None:
    """What a command presents to the server at ``url``; None is nothing.

    Without a key, and to this machine's own server, that is a token signed with the secret in the home: whoever can
    read that is its operator anyway.
    """
    key = _given[0] if _given else os.environ.get(VARIABLE, "").strip()
    if key:
        return _Bearer(key)
    if url is None and (settings.keys_folder / FILE_NAME).exists():
        try:
            return _NodeToken(NodeTokens(AccessSecret.of_folder(settings.keys_folder), SystemClock()))
        except AccessSecretUnusable:
            return None
    return None


class _Bearer(httpx.Auth):
    """An API key, as it is."""

    def __init__(self, key: str) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        request.headers["authorization"] = f"Bearer {self._key}"
        yield request


class _NodeToken(httpx.Auth):
    """A new token for each request, since each holds a minute."""

    def __init__(self, tokens: NodeTokens) -> None:
        self._tokens = tokens

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See ``httpx.Auth``."""
        request.headers["authorization"] = f"Bearer {self._tokens.issue(LOCAL_OPERATOR)}"
        yield request
