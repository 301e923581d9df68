"""``manent projections`` beside a server that shares contexts through Valkey."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.commands import manent
from tests.support.server import Server, serving
from tests.support.valkey import ValkeyServer

WAIT_S = 30.0


@pytest.fixture
def server(tmp_path: Path, own_valkey: ValkeyServer) -> Iterator[Server]:
    """A server of its own, with the scripted engine and an empty Valkey."""
    own_valkey.run("FLUSHALL")
    with serving(tmp_path, engine="scripted", redis_url=own_valkey.url) as running:
        yield running


def talk(server: Server, session_id: str) -> None:
    """A turn of a conversation."""
    body = {"model": "default", "messages": [{"role": "user", "content": "hi"}], "session_id": session_id}
    httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=30).raise_for_status()


def projections(server: Server, *arguments: str, redis_url: str, code: int = 0) -> dict[str, object]:
    """What a command prints as JSON."""
    done = manent("projections", *arguments, "--json", home=server.home, redis_url=redis_url)
    assert done.returncode == code, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_a_conversation_is_shared_seen_rebuilt_and_verified(server: Server, own_valkey: ValkeyServer) -> None:
    """From the first turn to a forged context that verify names and a rebuild replaces."""
    for session_id in ("a", "b", "a"):
        talk(server, session_id)
    until_s = time.monotonic() + WAIT_S
    while (status := projections(server, "status", redis_url=own_valkey.url))["lag"] != 0:
        assert time.monotonic() < until_s, status
    assert (status["sessions"], status["checkpoint"]) == (2, status["head"])
    assert isinstance(status["memory_bytes"], int)
    assert status["memory_bytes"] > 100
    sound = projections(server, "verify", redis_url=own_valkey.url)
    assert (sound["sound"], sound["sessions"]) == (True, 2)
    key = next(key for key in own_valkey.run("KEYS", "manent:*") if key.endswith(b"/a}"))
    own_valkey.run("SET", key, "forged")
    wrong = projections(server, "verify", redis_url=own_valkey.url, code=1)
    first = wrong["first"]
    assert isinstance(first, dict)
    assert (wrong["wrong"], first["session_id"]) == (1, "a")
    rebuilt = projections(server, "rebuild", redis_url=own_valkey.url)
    assert (rebuilt["sessions"], rebuilt["epoch"] != status["epoch"]) == (2, True)
    assert projections(server, "verify", redis_url=own_valkey.url)["sound"] is True
    talk(server, "a")
    assert projections(server, "verify", redis_url=own_valkey.url)["sessions"] == 2
    spoken = manent("projections", "status", home=server.home, redis_url=own_valkey.url)
    assert str(rebuilt["epoch"]) in spoken.stdout


def test_without_a_redis_the_command_says_what_to_set(tmp_path: Path) -> None:
    """No setting is a usage error; a Redis that is not there is unreachable, by the exit code."""
    assert manent("db", "upgrade", home=tmp_path).returncode == 0
    with serving(tmp_path, engine="scripted"):
        pass
    unset = manent("projections", "status", home=tmp_path)
    assert (unset.returncode, "MANENT_REDIS_URL" in unset.stderr) == (2, True)
    away = manent("projections", "status", home=tmp_path, redis_url="redis://127.0.0.1:1/0")
    assert (away.returncode, "Traceback" in away.stderr) == (3, False), away.stderr
    wrong = manent("projections", "status", home=tmp_path, redis_url="http://127.0.0.1")
    assert (wrong.returncode, "rediss://" in wrong.stderr) == (2, True)


def test_a_server_answers_without_its_redis(tmp_path: Path) -> None:
    """It starts, converses and remembers, as if nobody had told it of one."""
    with serving(tmp_path, engine="scripted", redis_url="redis://127.0.0.1:1/0") as server:
        for _ in range(3):
            talk(server, "s")
        page = httpx.get(f"{server.address}/v1/sessions/s/messages", timeout=30).json()
    assert len(page["data"]) == 6
