"""MANENT_REDIS_URL: what is taken, and what is refused before anything connects."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from manent.app.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:secret@cache.example:6380/3",
        "rediss://:secret@cache.example/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_a_redis_url_is_taken_as_it_is(url: str) -> None:
    """TCP, TLS and sockets, with the options that name a database or certificates."""
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    "url",
    [
        "cache.example:6379",
        "http://cache.example",
        "redis://cache.example:port",
        "redis://cache.example/sessions",
        "redis://cache.example/0?retry_on_timeout=1",
    ],
)
def test_a_url_that_would_fail_later_is_refused_now(url: str) -> None:
    """A start says what is wrong, and not the first request."""
    with pytest.raises(ValidationError):
        Settings(redis_url=url)


def test_no_url_is_no_redis() -> None:
    """Empty, as in .env.example."""
    assert Settings().redis_url is None
    assert Settings(redis_url="").redis_url is None
