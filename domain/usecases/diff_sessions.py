"""Comparing two sessions turn by turn: what was said and answered, by which model, how fast and at what cost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.diff import Comparison, Turn, TurnPair, compare
from manent.domain.ports import EventStore
from manent.domain.replay_events import Fork
from manent.domain.session import SessionState
from manent.domain.usecases.answered import Answered, answered
from manent.domain.usecases.lineage import Segment, lineage
from manent.domain.usecases.replay import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDiff:
    """A page of a comparison.

    ``common`` is the last event that both conversations have in common, where one descends from the other or both
    from a third. ``completions`` has those that generated the page's answers, by the messages' ids.
    """

    a: SessionState
    b: SessionState
    common: Fork | None
    comparison: Comparison
    pairs: Sequence[TurnPair]
    has_more: bool
    completions: Mapping[str, Answered]


class DiffSessions:
    """Compares; whoever may replay both sessions may."""

    def __init__(self, *, store: EventStore, replay: Replay) -> None:
        self._store = store
        self._replay = replay

    async def page(self, principal: Principal, a: str, b: str, *, after: int | None, limit: int) -> SessionDiff:
        """At most ``limit`` turns above number ``after``; without it, those behind the common past.

        Raises:
            SessionNotFound: either is not there for this principal.
        """
        state_a, state_b = await self._replay.at(principal, a), await self._replay.at(principal, b)
        segments_a, segments_b = await self._segments(state_a), await self._segments(state_b)
        # In a thread: two conversations of 100,000 messages take most of a second.
        comparison = await asyncio.to_thread(compare, state_a.messages, state_b.messages)
        behind = [pair for pair in comparison.pairs if after is None or pair.number > after]
        pairs = behind[:limit]
        completions = {
            **await answered(self._store, state_a.tenant, segments_a, _answer_ids(pair.a for pair in pairs)),
            **await answered(self._store, state_b.tenant, segments_b, _answer_ids(pair.b for pair in pairs)),
        }
        return SessionDiff(
            a=state_a,
            b=state_b,
            common=_common(segments_a, segments_b),
            comparison=comparison,
            pairs=pairs,
            has_more=len(behind) > limit,
            completions=completions,
        )

    async def _segments(self, state: SessionState) -> list[Segment]:
        return await lineage(self._store, state.tenant, state.session_id, state.version)


def _answer_ids(turns: Iterable[Turn | None]) -> set[str]:
    return {turn.answer.message_id for turn in turns if turn is not None and turn.answer is not None}


def _common(a: Sequence[Segment], b: Sequence[Segment]) -> Fork | None:
    common: Fork | None = None
    for one, other in zip(a, b, strict=False):
        if one.session_id != other.session_id:
            break
        common = Fork(session_id=one.session_id, version=min(one.version, other.version))
        if one.version != other.version:
            break
    return common
