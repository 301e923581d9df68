"""A server that ends in the middle of a rerun: its log says so, once, and what was generated stands."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL

from manent.adapters.projections.lru import LruContextCache
from manent.adapters.store.postgres import PostgresEventStore, ensure_postgres_log
from manent.domain.records import EventContext
from manent.domain.usecases.end_rerun import EndRerun
from manent.domain.usecases.sessions import Sessions
from tests.support.commands import manent
from tests.support.conversation import started
from tests.support.fakes import CountingIds, FakeClock
from tests.support.replays import BEGUN
from tests.support.server import Server, serving

LONG = 600
WAIT_S = 60.0


def begin(server: Server) -> None:
    """A conversation of two short turns, and a rerun of it whose answers would be long."""
    for text in ("Name a color.", "Write a very long story about the sea."):
        body = {
            "model": "default",
            "session_id": "s",
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 3,
        }
        assert httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=WAIT_S).status_code == 200
    asked = {"from_version": 1, "max_tokens": LONG, "session_id": "r"}
    assert httpx.post(f"{server.address}/v1/sessions/s/rerun", json=asked).status_code == 202
    until(server, lambda state: state["completion_id"] is not None)


def state_of(server: Server) -> dict[str, Any]:
    """The rerun's status."""
    found: dict[str, Any] = httpx.get(f"{server.address}/v1/sessions/r/rerun").json()
    return found


def until(server: Server, condition: Any) -> dict[str, Any]:
    """Wait for the rerun to be somewhere."""
    deadline = time.monotonic() + WAIT_S
    while not condition(state := state_of(server)):
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def types(home: Path) -> list[str]:
    """What the log says of the rerun, in order."""
    done = manent("events", "--session", "r", "--json", home=home)
    assert done.returncode == 0, done.stderr
    return [line.split('"type":"')[1].split('"')[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("how", ["kill -9", "ctrl-c"])
@pytest.mark.long
def test_a_rerun_whose_server_ends_is_interrupted(home: Path, how: str) -> None:
    """Killed: closed at the next start. Stopped: by itself. The rerun and its completion end exactly once."""
    with serving(home, drain_s=0) as server:
        begin(server)
        if how == "kill -9":
            server.kill()
        else:
            assert server.stop(signal.SIGINT) == 0
    with serving(home) as server:
        state = state_of(server)
        assert state["status"] == "interrupted"
        assert state["turns_done"] < state["turns_total"] == 2
        assert (state["completion_id"], state["error"]["code"]) == (
            None,
            "interrupted" if how == "kill -9" else "shutting_down",
        )
        found = types(home)
        assert found.count("RerunEnded") == 1
        ends = [name for name in found if name in {"CompletionGenerated", "CompletionFailed", "CompletionCancelled"}]
        assert len(ends) == found.count("CompletionRequested") >= 1
        assert manent("log", "verify", home=home).returncode == 0
        again = {"from_version": 1, "max_tokens": 3, "session_id": "again"}
        assert httpx.post(f"{server.address}/v1/sessions/s/rerun", json=again).status_code == 202


async def test_a_rerun_belongs_to_its_node_until_that_is_gone(
    postgres_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes that share a database leave each other's reruns alone; what an absent one left is closed once."""
    monkeypatch.setattr("manent.adapters.store.postgres.ABSENT_FOR_S", 0.5)
    ids, clock = CountingIds(), FakeClock()
    await ensure_postgres_log(postgres_url, ids)
    context = EventContext(tenant="acme", actor="ann")
    survivor = PostgresEventStore(postgres_url, clock=clock, ids=ids, node_id=1)
    other = PostgresEventStore(postgres_url, clock=clock, ids=ids, node_id=2)
    ending = EndRerun(survivor, Sessions(survivor, LruContextCache(budget_bytes=1_000_000)), clock)
    try:
        await survivor.start()
        await other.start()
        await other.append("session-s", [started(), BEGUN], expected_version=0, context=context)
        (mark,) = await survivor.open_completions()
        assert await survivor.orphaned_completions() == []
        assert await ending.interrupted(mark) is False
        await other.aclose()
        assert await survivor.orphaned_completions() == [mark]
        assert [await ending.interrupted(mark) for _ in range(2)] == [True, False]
        types = [record.header.type for record in await survivor.read_stream("acme", "session-s")]
        assert types == ["SessionStarted", "RerunStarted", "RerunEnded"]
    finally:
        await survivor.aclose()
