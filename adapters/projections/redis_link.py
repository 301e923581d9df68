"""The connection to Redis or Valkey: a bounded pool, a timeout around everything, and no retries.

A command whose answer was not read, because it took too long or its caller was cancelled, ends its connection: the
next one who used it would read another's answer. redis-py does so itself, and a test keeps it to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from manent.domain.projections import CacheUnavailable

HEALTH_CHECK_S = 30
READ_BYTES = 1024 * 1024

Command = Sequence[str | bytes | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisLimits:
    """Bounds on the use of Redis: connections, and how long anything may take in all, seconds."""

    connections_max: int = 16
    timeout_s: float = 0.25


class RedisLink:
    """Sends commands, several at once where that is possible. Belongs to one event loop."""

    def __init__(self, url: str, limits: RedisLimits) -> None:
        self._timeout_s = limits.timeout_s
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=limits.connections_max,
            timeout=limits.timeout_s,
            socket_timeout=limits.timeout_s,
            socket_connect_timeout=limits.timeout_s,
            health_check_interval=HEALTH_CHECK_S,
            socket_read_size=READ_BYTES,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._client = Redis.from_pool(pool)
        self.errors = self.answers = 0

    async def one(self, *command: str | bytes | int, timeout_s: float | None = None) -> Any:
        """The answer to a command.

        Raises:
            CacheUnavailable: none came in time, or the server refused.
        """
        async with self._translated(timeout_s or self._timeout_s):
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own

    async def several(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Any]:
        """The answers to commands that are sent together; one that the server refused is its error.

        Raises:
            CacheUnavailable: the answers did not come in time.
        """
        async with self._translated(timeout_s or self._timeout_s), self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

    async def many(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Any]:
        """As ``several``, for commands of which thousands are sent or one is waited for: answers come as they are.

        A pipeline of redis-py takes several times as long, most of it to write commands in Python, and gives some
        commands' answers other shapes.
        """
        answers: list[Any] = []
        async with self._translated(timeout_s or self._timeout_s), self._connection() as connection:
            packed = [pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]  # its stub knows tuples of one
            await connection.send_packed_command(packed)
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
        return answers

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[AbstractConnection, None]:
        """A connection of the pool, which is closed unless all that was asked on it was answered."""
        pool = self._client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # redis-py's own
        try:
            yield connection
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def _translated(self, timeout_s: float) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            self.errors += 1
            raise CacheUnavailable(f"Redis did not answer within {timeout_s:g} s") from error
        except (RedisError, OSError) as error:
            self.errors += 1
            raise CacheUnavailable(f"Redis: {str(error) or type(error).__name__}") from error
        self.answers += 1

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose(close_connection_pool=True)
