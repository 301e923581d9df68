"""What commands share: consoles, exit codes, and the one way in which a command fails."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Coroutine
from enum import IntEnum
from typing import NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from manent.app.settings import Settings, SettingsError, load_settings

T = TypeVar("T")
JOINERS = "\u200c\u200d"  # they join letters and emoji; the other format characters can turn text around

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class ExitCode(IntEnum):
    """What a command's end says to a script (docs/reference/command-line.md)."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    UNDECIDED = 4


def visible(text: str) -> str:
    """``text`` with its control characters shown and not obeyed: clients must not move an auditor's cursor."""
    return "".join(char if char in "\n\t" or not _is_control(char) else repr(char)[1:-1] for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf"} and char not in JOINERS


def literal(text: object) -> str:
    """``text`` for a console: visible, and not taken for markup."""
    return escape(visible(str(text)))


def fail(message: str, code: ExitCode = ExitCode.NO) -> NoReturn:
    """Say what was wrong, literally, and end the command."""
    err.print(f"[red]manent:[/red] {literal(message)}", soft_wrap=True)
    raise typer.Exit(code)


def print_json(value: object) -> None:
    """One line of JSON on standard output."""
    print(msgspec.json.encode(value).decode(), flush=True)  # noqa: T201 (the command's result)


def settings_or_fail() -> Settings:
    """The settings, or the end of the command with what is wrong in them."""
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error), ExitCode.USAGE)


def run(task: Coroutine[None, None, T]) -> T:
    """Run ``task`` to its end; Ctrl-C ends the command as a shell expects."""
    try:
        return asyncio.run(task)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
