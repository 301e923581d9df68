"""Servers that share a PostgreSQL: one log, and no server closes what another runs."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import URL

from tests.support.commands import manent
from tests.support.server import manent_process, serving


def events_of(address: str, **wanted: str) -> list[dict[str, str]]:
    """Headers of the events that the audit finds."""
    page = httpx.get(f"{address}/v1/events", params={"limit": "500", **wanted}, timeout=30, trust_env=False).json()
    return [event["header"] for event in page["data"]]


@pytest.mark.long
def test_a_node_spares_the_living_and_closes_the_dead(home: Path, tmp_path: Path, postgres_url: URL) -> None:
    """What runs elsewhere stays open, at another's start and at its sweeps; after kill -9 the next sweep closes it."""
    database_url = postgres_url.render_as_string(hide_password=False)
    second_home = tmp_path / "second"
    second_home.mkdir()
    with serving(home, database_url=database_url) as first:
        stream = first.client().chat.completions.create(
            model="default",
            messages=[{"role": "user", "content": "Tell me a long story."}],
            max_tokens=2000,
            stream=True,
            extra_body={"session_id": "shared"},
        )
        next(iter(stream))
        with serving(second_home, database_url=database_url, engine="scripted", sweep_interval_s=1) as second:
            types = [header["type"] for header in events_of(second.address)]
            assert "CompletionRequested" in types
            assert "CompletionFailed" not in types
            busy = httpx.post(
                f"{second.address}/v1/chat/completions",
                json={"model": "default", "session_id": "shared", "messages": [{"role": "user", "content": "And?"}]},
                timeout=30,
                trust_env=False,
            )
            assert busy.json()["error"]["code"] == "session_busy"
            first.kill()
            failures: list[dict[str, str]] = []
            while not failures:
                failures = events_of(second.address, type="CompletionFailed")
                time.sleep(0.2)
            assert [failure["stream_id"] for failure in failures] == ["session-shared"]
            answer = second.client().chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": "Hello?"}],
                extra_body={"session_id": "shared"},
            )
            assert answer.choices[0].message.content
    assert "CompletionFailed" in manent("events", home=second_home, database_url=database_url).stdout
    assert manent("db", "status", home=second_home, database_url=database_url).returncode == 0


def test_a_database_that_is_not_there_is_named_without_its_password(home: Path) -> None:
    """The server does not start, and says what to look at; the password stays out of it."""
    done = manent_process("serve", home=home, database_url="postgresql+asyncpg://ann:secret@127.0.0.1:1/nowhere")
    assert done.returncode == 1
    assert "127.0.0.1:1/nowhere" in done.stderr
    assert "MANENT_DATABASE_URL" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    done = manent_process("serve", home=home, database_url="postgres://ann:secret@127.0.0.1/nowhere")
    assert done.returncode == 2
    assert "postgresql+asyncpg://" in done.stderr
    assert "secret" not in done.stderr
