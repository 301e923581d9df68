"""Streams of a real server whose Valkey, or runner, is hurt in the middle: each complete, in time, and told again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.support.server import Server, prepare_home, serving
from tests.support.streamed import completion_of, events_of, id_of, told
from tests.support.valkey import ValkeyServer

STORY = [{"role": "user", "content": "Tell me a long story about the sea."}]
TOKENS = 20
TIMEOUT_S = 0.5
SLACK_S = 3.0
"""What a busy machine may add to a stream of a second."""
VALKEY_FAULTS = ("frozen", "flushed", "gone", "restarted", "full")
FAULTS = ("none", *VALKEY_FAULTS, "runner killed")
LOST = "the stream of {} cannot be resumed elsewhere"


@dataclass
class Lived:
    """A stream as its client had it, and as it was told again: where it ran, and by another server afterwards."""

    events: list[str]
    waited_s: float
    is_lost: bool
    again: list[str] = field(default_factory=list)
    elsewhere: Mapping[int, list[str]] = field(default_factory=dict)
    stored: str | None = None


@contextmanager
def gone(valkey: ValkeyServer) -> Iterator[None]:
    """The server ended; it comes back afterwards."""
    valkey.kill()
    try:
        yield
    finally:
        valkey.start()


@contextmanager
def full(valkey: ValkeyServer) -> Iterator[None]:
    """Nothing more may be written, and nothing is evicted."""
    valkey.run("CONFIG", "SET", "maxmemory", "1")
    try:
        yield
    finally:
        valkey.run("CONFIG", "SET", "maxmemory", "0")


def restarted(valkey: ValkeyServer) -> AbstractContextManager[None]:
    """Another process in its place, with nothing in it."""
    valkey.kill()
    valkey.start()
    return nullcontext()


def flushed(valkey: ValkeyServer) -> AbstractContextManager[None]:
    """All that it had is gone."""
    valkey.run("FLUSHALL")
    return nullcontext()


def faults_of(server: Server, valkey: ValkeyServer) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    """What happens in the middle of the stream that is called after it; the block is the rest of the stream."""

    def kill_runner() -> AbstractContextManager[None]:
        (pid,) = server.runner_pids()
        os.kill(pid, signal.SIGKILL)
        return nullcontext()

    return {
        "none": nullcontext,
        "frozen": valkey.frozen,
        "flushed": lambda: flushed(valkey),
        "gone": lambda: gone(valkey),
        "restarted": lambda: restarted(valkey),
        "full": lambda: full(valkey),
        "runner killed": kill_runner,
    }


def streamed(server: Server, session_id: str, fault: Callable[[], AbstractContextManager[None]]) -> Lived:
    """A stream that is read to its end, with the fault as soon as it has begun to talk."""
    body = {"model": "default", "messages": STORY, "temperature": 0, "max_tokens": TOKENS, "stream": True}
    url, read = f"{server.address}/v1/chat/completions", ""
    with httpx.stream("POST", url, json={**body, "session_id": session_id}, timeout=60) as answer:
        texts = answer.iter_text()
        while "0-1.1." not in read:
            read += next(texts)
        with fault():
            began = time.monotonic()
            read += "".join(texts)
            waited_s = time.monotonic() - began
    lost = LOST.format(completion_of(read))
    return Lived(events=events_of(read), waited_s=waited_s, is_lost=lost in "".join(server.output))


def resumed(server: Server, lived: Lived, after: int) -> list[str]:
    """The events behind number ``after``, from 1, of those that the client has; 0 is all."""
    headers = {"Last-Event-ID": id_of(lived.events[after - 1])} if after else {}
    url = f"{server.address}/v1/chat/completions/{completion_of(lived.events[0])}/stream"
    answer = httpx.get(url, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, starter_model: Path, own_valkey: ValkeyServer) -> dict[str, Lived]:
    """A stream through each fault on one server; all are told again there, and by the server that comes after it."""
    home = prepare_home(tmp_path_factory.mktemp("valkey") / "home", starter_model)
    settings = {"redis_url": own_valkey.url, "redis_timeout_s": TIMEOUT_S}
    found: dict[str, Lived] = {}
    with serving(home, redis_retry_s=0.05, **settings) as server:
        httpx.post(f"{server.address}/v1/models/default/load", timeout=120).raise_for_status()
        for name, fault in faults_of(server, own_valkey).items():
            found[name] = streamed(server, name.replace(" ", "-"), fault)
            time.sleep(0.1)  # the breaker's period
        for one in found.values():
            one.again = resumed(server, one, 2)
        server.stop()
    with serving(home, engine="scripted", **settings) as server:
        for name, one in found.items():
            asked = [0, *range(1, len(one.events), 4), len(one.events) - 1]
            one.elsewhere = {after: resumed(server, one, after) for after in asked}
            messages = httpx.get(f"{server.address}/v1/sessions/{name.replace(' ', '-')}/messages").json()["data"]
            one.stored = messages[-1]["content"] if messages[-1]["role"] == "assistant" else None
    return found


@pytest.mark.parametrize("fault", VALKEY_FAULTS)
def test_a_hurt_valkey_costs_a_stream_nothing(lived: dict[str, Lived], fault: str) -> None:
    """Its client has the same as without the fault, to the end, and is not late by more than Valkey's timeouts."""
    hurt, healthy = lived[fault], lived["none"]
    assert (hurt.is_lost, healthy.is_lost) == (True, False)
    assert hurt.events[-1] == "data: [DONE]"
    assert told(hurt.events) == told(healthy.events)
    assert told(hurt.events)["0 content"] == hurt.stored
    timeouts_s = 2 * TIMEOUT_S  # one for streams, one for contexts: each has a breaker of its own
    assert hurt.waited_s < 3 * healthy.waited_s + timeouts_s + SLACK_S


@pytest.mark.parametrize("fault", FAULTS)
def test_a_stream_is_told_again_whatever_its_buffer_went_through(lived: dict[str, Lived], fault: str) -> None:
    """Where it ran, and by a later server from what the buffer has and the log: no hole, and nothing twice."""
    one = lived[fault]
    for after, rest in [(2, one.again), *one.elsewhere.items()]:
        assert told(one.events[:after] + rest) == told(one.events), after
        assert rest[-1] == one.events[-1]


def test_a_stream_whose_runner_is_killed_says_so(lived: dict[str, Lived]) -> None:
    """An error event, no [DONE], and what was said before it."""
    events = lived["runner killed"].events
    assert '"code":"runner_crashed"' in events[-1]
    assert "data: [DONE]" not in events
    assert told(lived["none"].events)["0 content"].startswith(told(events)["0 content"])
