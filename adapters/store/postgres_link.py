"""How Manent speaks to PostgreSQL: connecting within bounds, the limits of every wait, and what its errors mean."""

from __future__ import annotations

import asyncio
import functools
import itertools
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # generic for type checkers only

CHANNEL = "manent_log"
# A page is planned for its own values: how many rows it wants, and how rare what it asks for is, decide the plan. The
# plan for any values, which PostgreSQL takes after five executions, reads a tenth of the log for a page.
PAGE_PLANS = {"plan_cache_mode": "force_custom_plan"}

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
"""What a connection may raise; TimeoutError is an OSError.

On uvloop asyncpg meets a connection that ended while it was idle with an InternalClientError.
"""

# Classes of SQLSTATE that a value of the statement is to blame for: data, integrity, size, and our own triggers.
_BLAMES_A_VALUE = {"22", "23", "54", "P0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresLimits:
    """How long Manent waits for PostgreSQL, in seconds.

    ``lock_s`` bounds the wait for another node's transaction, ``answer_s`` a whole transaction (a frozen server
    answers nothing, so the client counts too), ``outcome_s`` the search for the outcome of a COMMIT whose answer was
    lost. The server ends a transaction that its client has left for ``answer_s``, so no node stops the others for ever.
    """

    connect_s: float = 3.0
    lock_s: float = 5.0
    answer_s: float = 10.0
    outcome_s: float = 20.0

    def server_settings(self) -> dict[str, str]:
        """The same bounds, kept by the server."""
        return {
            "application_name": "manent",
            "lock_timeout": _ms(self.lock_s),
            "statement_timeout": _ms(self.answer_s),
            "idle_in_transaction_session_timeout": _ms(self.answer_s),
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
        }


DEFAULT_LIMITS = PostgresLimits()


def connect_arguments(url: URL) -> dict[str, Any]:
    """A SQLAlchemy URL as arguments for ``asyncpg.connect``."""
    arguments: dict[str, Any] = PGDialect_asyncpg().create_connect_args(url)[1]  # type: ignore[no-untyped-call]  # SQLAlchemy's own
    return {name: value for name, value in arguments.items() if not name.startswith("prepared_statement_")}


async def connect(url: URL, limits: PostgresLimits, settings: Mapping[str, str] | None = None) -> Connection:
    """A connection of its own, or one of DRIVER_ERRORS within ``connect_s``."""
    async with asyncio.timeout(limits.connect_s):
        return await asyncpg.connect(
            **connect_arguments(url),
            timeout=limits.connect_s,
            command_timeout=limits.answer_s,
            server_settings={**limits.server_settings(), **(settings or {})},
        )


@functools.cache
def numbered(statement: str) -> str:
    """SQL with a ``?`` for each value as PostgreSQL writes it: ``$1``, ``$2``, …."""
    numbers = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", statement)


def drop(connection: Connection | None) -> None:
    """End a connection without a word to the server, which rolls back what it had open."""
    if connection is not None:
        with suppress(*DRIVER_ERRORS):
            connection.terminate()


def blames_a_value(error: Exception) -> bool:
    """Whether a statement failed for what it carried, so that others of its batch may fare better."""
    if isinstance(error, asyncpg.PostgresError):
        return (getattr(error, "sqlstate", None) or "")[:2] in _BLAMES_A_VALUE
    return isinstance(error, ValueError)  # the driver could not encode it


def reason(error: BaseException) -> str:
    """An error in a few words; a timeout has none of its own."""
    return f"no answer in time ({type(error).__name__})" if isinstance(error, TimeoutError) else str(error)


def _ms(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))
