"""GET /v1/sessions/{a}/diff/{b}: two sessions turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, system_fingerprint, usage_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.query import IntQuery, QueryParameter
from manent.adapters.http.replay_answers import fork_answer, sampling_answer
from manent.adapters.http.session_messages import message_answer
from manent.adapters.http.sessions import possible_id
from manent.adapters.http.wire_replay import (
    AnsweredBy,
    DiffCounts,
    DiffOf,
    DiffSide,
    DiffTurn,
    Durations,
    SessionDiff,
)
from manent.domain import diff
from manent.domain.session import SessionState
from manent.domain.usecases import diff_sessions
from manent.domain.usecases.answered import Answered

TURNS_MAX = 2**31 - 1

DIFF_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="after", says="last_id of the page before, a turn's number", minimum=0, maximum=TURNS_MAX),
    IntQuery(name="limit", says="how many turns to return", minimum=1, maximum=100, default=20),
)


async def compare_sessions(exchange: Exchange, a: str, b: str) -> HTTPResponse:
    """A page of the comparison, from the end of the common past on."""
    page = await exchange.services.replays.recorded.diff.page(
        exchange.principal,
        possible_id(a),
        possible_id(b),
        after=exchange.query["after"],
        limit=exchange.query["limit"],
    )
    return json_answer(diff_answer(page))


def diff_answer(page: diff_sessions.SessionDiff) -> SessionDiff:
    """A page of a comparison on the wire."""
    comparison, pairs = page.comparison, page.pairs
    return SessionDiff(
        a=_compared(page.a),
        b=_compared(page.b),
        common=fork_answer(page.common),
        shared_turns=comparison.shared,
        counts=DiffCounts(**{status.value: comparison.count(status) for status in diff.TurnStatus}),
        data=[
            DiffTurn(
                number=pair.number,
                status=pair.status.value,
                same_messages=pair.same_said,
                same_answer=pair.same_answer,
                a=_side(pair.a, page.completions),
                b=_side(pair.b, page.completions),
            )
            for pair in pairs
        ],
        first_id=str(pairs[0].number) if pairs else None,
        last_id=str(pairs[-1].number) if pairs else None,
        has_more=page.has_more,
    )


def _compared(state: SessionState) -> DiffOf:
    return DiffOf(session_id=state.session_id, version=state.version, parent=fork_answer(state.parent))


def _side(turn: diff.Turn | None, completions: Mapping[str, Answered]) -> DiffSide | None:
    if turn is None:
        return None
    completion = None if turn.answer is None else completions.get(turn.answer.message_id)
    return DiffSide(
        messages=[message_answer(message) for message in turn.said],
        answer=None if turn.answer is None else message_answer(turn.answer),
        completion=None if completion is None else _answered_by(completion),
    )


def _answered_by(completion: Answered) -> AnsweredBy:
    timings = completion.timings
    return AnsweredBy(
        id=completion.completion_id,
        model=completion.model_id,
        finish_reason=completion.finish_reason.value,
        parameters=sampling_answer(completion.parameters),
        usage=usage_answer(completion.usage),
        timings=Durations(queue_s=timings.queue_s, prefill_s=timings.prefill_s, decode_s=timings.decode_s),
        system_fingerprint=system_fingerprint(completion.provenance),
    )
