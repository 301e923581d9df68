"""The contract of stream buffers: files of this machine, and Redis Streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from manent.adapters.projections.breaker import CircuitBreaker
from manent.adapters.projections.redis_link import RedisLimits, RedisLink
from manent.adapters.projections.stream_files import FileStreams
from manent.adapters.projections.stream_limits import StreamLimits
from manent.adapters.projections.stream_redis import RedisStreams
from manent.app.system import RandomIds
from manent.domain.generation import TextDelta, TokenCandidate, TokenLogprobs
from manent.domain.messages import ToolCall
from manent.domain.streams import StreamBuffer, StreamKey
from tests.support.redis_streams import redis_streams
from tests.support.valkey import ValkeyServer

STREAM = StreamKey(tenant="acme/:{}", completion_id="chatcmpl-1")
LIMITS = StreamLimits(stream_bytes_max=2000)
CANDIDATE = TokenCandidate(token_id=1, token_bytes=b"\xc3", logprob=-0.5)
DELTAS = (
    TextDelta(text="a", token_ids=(1,)),
    TextDelta(text="\N{GRINNING FACE}\0\n", token_ids=(2, 3), index=1, reasoning="why"),
    TextDelta(text="", token_ids=(), tool_calls=(ToolCall(id="c", name="f", arguments="{}"),)),
    TextDelta(text="é", token_ids=(4,), logprobs=(TokenLogprobs(chosen=CANDIDATE, top=(CANDIDATE,)),)),
)

Reopen = Callable[[], StreamBuffer]


@pytest.fixture(params=["files", "redis"])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Reopen, None]:
    """Opens the same buffer again, as another process or the next start does."""
    if request.param == "files":
        yield lambda: FileStreams(tmp_path, LIMITS)
        return
    valkey: ValkeyServer = request.getfixturevalue("valkey")
    log_id, opened = RandomIds().new("log_"), []

    def open_again() -> StreamBuffer:
        link = RedisLink(valkey.url, RedisLimits(timeout_s=5.0))
        opened.append(RedisStreams(link, CircuitBreaker(period_s=5.0), log_id=log_id, limits=LIMITS))
        return opened[-1]

    yield open_again
    for buffer in opened:
        await buffer.aclose()


def files(folder: Path) -> list[Path]:
    """What is in the folder."""
    return list(folder.iterdir())


async def test_what_is_kept_is_read_from_any_number_on(reopen: Reopen) -> None:
    """Each delta with all that it says; by whoever opens the buffer, while it grows and after its end."""
    buffer, other = reopen(), reopen()
    await buffer.append(STREAM, 0, DELTAS[:1])
    assert list(await other.read(STREAM, 0)) == list(DELTAS[:1])
    await buffer.append(STREAM, 1, DELTAS[1:3])
    assert list(await other.read(STREAM, 1)) == list(DELTAS[1:3])
    assert list(await other.read(STREAM, 3)) == []
    await buffer.append(STREAM, 3, DELTAS[3:])
    await buffer.end(STREAM)
    assert list(await other.read(STREAM, 3)) == list(DELTAS[3:])
    for number in range(len(DELTAS) + 2):
        assert list(await reopen().read(STREAM, number)) == list(DELTAS[number:])


async def test_streams_are_apart(reopen: Reopen) -> None:
    """By tenant and by completion."""
    buffer = reopen()
    await buffer.append(STREAM, 0, DELTAS[:1])
    for other in (
        StreamKey(tenant="acme", completion_id=STREAM.completion_id),
        StreamKey(tenant=STREAM.tenant, completion_id="chatcmpl-2"),
    ):
        assert list(await buffer.read(other, 0)) == []


async def test_a_stream_over_its_bound_has_a_beginning_and_no_hole(reopen: Reopen) -> None:
    """Once a delta is not kept, none after it is; others go on."""
    buffer = reopen()
    big = TextDelta(text="x" * 1500, token_ids=())
    for number, delta in enumerate((DELTAS[0], big, big, DELTAS[0])):
        await buffer.append(STREAM, number, (delta,))
    other = StreamKey(tenant="t", completion_id="other")
    await buffer.append(other, 0, DELTAS[:1])
    assert list(await buffer.read(STREAM, 0)) == [DELTAS[0], big]
    assert list(await buffer.read(other, 0)) == [DELTAS[0]]


async def test_files_survive_a_torn_end(tmp_path: Path) -> None:
    """What a kill cut in the middle is left out; what is before it is read."""
    buffer = FileStreams(tmp_path)
    for number, delta in enumerate(DELTAS):
        await buffer.append(STREAM, number, (delta,))
    buffer.close()
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    counts = set()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        read = list(await FileStreams(tmp_path).read(STREAM, 0))
        assert read == list(DELTAS[: len(read)])
        counts.add(len(read))
    assert counts == {0, 1, 2, 3}
    path.write_bytes(whole[:8] + b"\xc1" + whole[9:])
    assert list(await FileStreams(tmp_path).read(STREAM, 0)) == []


async def test_files_are_bounded_in_all_and_in_time(tmp_path: Path) -> None:
    """The oldest that ended make room; what is old is deleted, also what an earlier process left."""
    now_s = [1_000_000.0]
    limits = StreamLimits(stream_bytes_max=2000, total_bytes_max=3000, keep_s=60)
    buffer = FileStreams(tmp_path, limits, now_s=lambda: now_s[0])
    keys = [StreamKey(tenant="t", completion_id=str(number)) for number in range(3)]
    for key in keys:
        await buffer.append(key, 0, (TextDelta(text="x" * 1200, token_ids=()),))
        await buffer.end(key)
    assert [len(await buffer.read(key, 0)) for key in keys] == [0, 1, 1]
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path))
    now_s[0] += 61
    await buffer.end(keys[0])
    assert files(tmp_path) == []
    assert FileStreams(tmp_path, limits)._total_bytes == 0


async def test_a_full_disk_costs_the_stream_and_nothing_else(tmp_path: Path) -> None:
    """Where a file cannot be made, nothing is kept and nothing fails."""
    buffer = FileStreams(tmp_path / "streams")
    (tmp_path / "streams").rmdir()
    await buffer.append(STREAM, 0, DELTAS[:1])
    await buffer.append(STREAM, 1, DELTAS[1:2])
    await buffer.end(STREAM)
    assert list(await buffer.read(STREAM, 0)) == []


async def test_redis_that_is_emptied_or_gone_leaves_no_hole_behind(own_valkey: ValkeyServer) -> None:
    """After a flush nothing is read rather than a part; one that does not answer is asked once a period."""
    link = RedisLink(own_valkey.url, RedisLimits(timeout_s=0.2))
    buffer = RedisStreams(link, CircuitBreaker(period_s=60.0), log_id="log")
    await buffer.append(STREAM, 0, DELTAS[:1])
    own_valkey.run("FLUSHALL")
    await buffer.append(STREAM, 1, DELTAS[1:2])
    assert list(await buffer.read(STREAM, 0)) == []
    other = StreamKey(tenant="t", completion_id="other")
    own_valkey.run("SET", buffer._key(other), "somebody else's")
    await buffer.append(other, 0, DELTAS[:1])
    assert list(await buffer.read(other, 0)) == []
    own_valkey.kill()
    await buffer.append(StreamKey(tenant="t", completion_id="third"), 0, DELTAS[:1])
    assert buffer._breaker.is_open
    assert list(await buffer.read(STREAM, 0)) == []
    own_valkey.start()
    await buffer.aclose()


async def test_streams_in_step_are_written_together(valkey: ValkeyServer) -> None:
    """Eight that write at once cost one round trip, not eight; each keeps all of its own, and expires."""
    limits = StreamLimits(stream_bytes_max=2000, keep_s=60.0)
    keys = [StreamKey(tenant="t", completion_id=str(number)) for number in range(8)]
    async with redis_streams(valkey, timeout_s=5.0, limits=limits) as opened:
        buffer = opened.buffer
        for number, delta in enumerate(DELTAS):
            await asyncio.gather(*(buffer.append(key, number, (delta,)) for key in keys))
        assert opened.link.answers == len(DELTAS)
        for key in keys:
            assert list(await buffer.read(key, 0)) == list(DELTAS)
            assert 60_000 <= valkey.run("PTTL", buffer._key(key)) <= 66_000
        valkey.run("DEL", buffer._key(keys[0]))
        await asyncio.gather(*(buffer.append(key, 4, DELTAS[:1]) for key in keys))
        assert valkey.run("EXISTS", buffer._key(keys[0])) == 0
        assert list(await buffer.read(keys[1], 0)) == [*DELTAS, DELTAS[0]]


async def test_a_frozen_redis_costs_all_streams_one_timeout_a_period(own_valkey: ValkeyServer) -> None:
    """Eight streams wait together, once; those that begin within the period do not, and the first behind it asks."""
    now_s = [0.0]
    async with redis_streams(own_valkey, monotonic_s=lambda: now_s[0]) as opened:

        async def write(name: str) -> None:
            for number in range(20):
                await opened.buffer.append(StreamKey(tenant="t", completion_id=name), number, DELTAS[:1])

        with own_valkey.frozen():
            await asyncio.gather(*(write(f"running {number}") for number in range(8)))
            await asyncio.gather(*(write(f"new {number}") for number in range(8)))
            assert opened.link.errors == 1
            now_s[0] += 61
            await asyncio.gather(*(write(f"probing {number}") for number in range(8)))
            assert opened.link.errors == 2
        now_s[0] += 61
        await write("afterwards")
        assert len(await opened.buffer.read(StreamKey(tenant="t", completion_id="afterwards"), 0)) == 20
