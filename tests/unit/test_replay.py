"""Sessions as they stood: at a version, a position or a time, and for whom."""

from __future__ import annotations

import pytest

from manent.domain.errors import DomainError, InvalidValue, SessionGone, SessionNotFound
from manent.domain.usecases.manage_sessions import StartSession
from manent.domain.usecases.replay import AsOf
from tests.support.conversation import ANN, BOB
from tests.support.replays import AUDITOR, recorded, talk, texts_of, world_of_two_models


async def test_a_version_is_counted_in_events() -> None:
    """Each version of a stream is the state right after that event, and the last one is now."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    replay = recorded(world).replay
    lengths = [len((await replay.at(ANN, "s", AsOf(version=version))).messages) for version in range(1, 10)]
    assert lengths == [0, 1, 1, 1, 2, 3, 3, 3, 4]
    assert await replay.at(ANN, "s", AsOf(version=9)) == await replay.at(ANN, "s")
    assert (await replay.at(ANN, "s", AsOf(version=3))).open_completion_id is not None


async def test_positions_and_times_name_the_last_event_until_then() -> None:
    """Whatever else is in the log between, and beyond its end it is now."""
    world = world_of_two_models()
    for text in ("one", "two"):
        await talk(world, text)
        world.clock.advance(10)
        await talk(world, "elsewhere", session_id="other")
        world.clock.advance(10)
    replay = recorded(world).replay
    headers = [record.header for record in await world.store.read_stream("acme", "session-s")]
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        last = following.position - 1 if following else 10_000
        for position in (header.position, last):
            assert (await replay.at(ANN, "s", AsOf(position=position))).version == header.stream_version
    first_turn_us = headers[0].recorded_at_us
    assert (await replay.at(ANN, "s", AsOf(time_us=first_turn_us))).version == 5
    assert (await replay.at(ANN, "s", AsOf(time_us=first_turn_us + 19_999_999))).version == 5
    assert (await replay.at(ANN, "s", AsOf(time_us=first_turn_us + 20_000_000))).version == 9


@pytest.mark.parametrize(
    ("moment", "param", "said"),
    [
        (AsOf(version=0), "as_of_version", "has 1 to 5"),
        (AsOf(version=6), "as_of_version", "has 1 to 5"),
        (AsOf(position=1), "as_of_position", "did not exist yet"),
        (AsOf(time_us=1), "as_of", "did not exist yet"),
        (AsOf(version=1, position=7), None, "send one of them"),
    ],
)
async def test_a_moment_that_never_was_is_refused(moment: AsOf, param: str | None, said: str) -> None:
    """Before its first event a session did not exist, and behind its last there is no version."""
    world = world_of_two_models()
    await talk(world, "earlier", session_id="other")
    await talk(world, "one")
    with pytest.raises(InvalidValue, match=said) as refused:
        await recorded(world).replay.at(ANN, "s", moment)
    assert refused.value.param == param


async def test_a_deleted_session_replays_for_auditors_only() -> None:
    """Its owner closed it; the log keeps it for those who audit, in all its versions."""
    world = world_of_two_models()
    await talk(world, "one")
    await world.manent.manage_sessions.delete(ANN, "s", request_id=None)
    replay = recorded(world).replay
    for principal in (ANN, BOB):
        with pytest.raises(SessionNotFound):
            await replay.at(principal, "s", AsOf(version=2))
    assert texts_of(await replay.at(AUDITOR, "s", AsOf(version=2))) == ["one"]
    assert (await replay.at(AUDITOR, "s")).status == "deleted"


async def test_an_expired_session_replays_for_auditors_only() -> None:
    """Whether or not its expiry is recorded yet; its owner is told when it ended."""
    world = world_of_two_models()
    await world.manent.manage_sessions.start(StartSession(principal=ANN, session_id="s", ttl_s=60))
    world.clock.advance(61)
    replay = recorded(world).replay
    with pytest.raises(SessionGone, match="expired at"):
        await replay.at(ANN, "s", AsOf(version=1))
    assert (await replay.at(AUDITOR, "s", AsOf(version=1))).version == 1


@pytest.mark.parametrize("session_id", ["s", "nobody"])
async def test_somebody_elses_session_is_no_session(session_id: str) -> None:
    """The answer does not tell whether it is there."""
    world = world_of_two_models()
    await talk(world, "one")
    with pytest.raises(DomainError) as refused:
        await recorded(world).replay.at(BOB, session_id)
    assert refused.value.code == "session_not_found"
