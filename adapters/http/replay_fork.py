"""POST /v1/sessions/{id}/fork and /rerun, GET /v1/sessions/{id}/rerun."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer, session_headers
from manent.adapters.http.chat_command import domain_seed, domain_stop
from manent.adapters.http.context import Exchange
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.parameters import FORK_PARAMETERS, RERUN_PARAMETERS
from manent.adapters.http.sessions import possible_id, session_answer
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_replay import ForkRequest, Problem, Rerun, RerunRequest
from manent.adapters.http.wire_responses import ForkOf
from manent.domain.generation import RequestedParameters
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.rerun_session import RerunStatus
from manent.domain.usecases.run_rerun import RerunCommand


async def fork_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Fork a session; an empty body forks it as it stands."""
    members = await read_body(exchange.request, lambda: json_object(exchange.request, may_be_empty=True))
    asked = validated(ForkRequest, honored_members(members, FORK_PARAMETERS))
    state = await exchange.services.replays.recorded.fork.run(
        ForkCommand(
            principal=exchange.principal,
            session_id=possible_id(session_id),
            at_version=asked.at_version,
            fork_id=asked.session_id,
            metadata=asked.metadata,
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    return json_answer(session_answer(state), status=201, headers=session_headers(state.session_id))


async def rerun_session(exchange: Exchange, session_id: str) -> HTTPResponse:
    """Start a rerun; it goes on whether or not anybody follows it."""
    members = await read_body(exchange.request, lambda: json_object(exchange.request))
    asked = validated(RerunRequest, honored_members(members, RERUN_PARAMETERS))
    status = await exchange.services.replays.rerun.start(
        RerunCommand(
            principal=exchange.principal,
            session_id=possible_id(session_id),
            from_version=asked.from_version,
            model=asked.model,
            parameters=RequestedParameters(
                temperature=asked.temperature,
                top_p=asked.top_p,
                max_tokens=asked.max_tokens,
                stop=domain_stop(asked.stop),
                seed=None if asked.seed is None else domain_seed(asked.seed),
            ),
            rerun_session_id=asked.session_id,
            request_id=exchange.request.request_id,
            idempotency=idempotency_key(exchange),
        )
    )
    headers = {**session_headers(status.started.session_id), "location": _status_path(exchange, status)}
    return json_answer(_rerun(status), status=202, headers=headers)


async def retrieve_rerun(exchange: Exchange, session_id: str) -> HTTPResponse:
    """How far the rerun is that fills a session."""
    return json_answer(
        _rerun(await exchange.services.replays.rerun.status(exchange.principal, possible_id(session_id)))
    )


def _status_path(exchange: Exchange, status: RerunStatus) -> str:
    prefix = exchange.request.path.partition("/sessions/")[0]
    return f"{prefix}/sessions/{status.started.session_id}/rerun"


def _rerun(status: RerunStatus) -> Rerun:
    started, ended = status.started, status.ended
    problem = None
    if ended is not None and ended.code is not None:
        problem = Problem(code=ended.code, message=ended.reason or ended.code)
    return Rerun(
        id=started.rerun_id,
        session_id=started.session_id,
        source=ForkOf(session_id=started.source.session_id, version=started.source.version),
        from_version=started.from_version,
        model=started.model_asked,
        status=status.status,
        turns_done=status.turns_done,
        turns_total=started.turns,
        completion_id=status.completion_id,
        error=problem,
        started_at=started.started_at_us // 1_000_000,
        ended_at=None if ended is None else ended.ended_at_us // 1_000_000,
    )
