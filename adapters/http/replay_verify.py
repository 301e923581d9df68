"""POST /v1/chat/completions/{id}/verify: a completion generated again and compared with the record."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.parameters import VERIFY_PARAMETERS
from manent.adapters.http.replay_context import possible_completion
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_verify import (
    ChangedPart,
    CompletionVerification,
    DivergedAt,
    SaidToken,
    VerifyRequest,
)
from manent.domain.usecases.verify_completion import Verification, VerifyCommand
from manent.domain.verification import Divergence


async def verify_completion(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """Verify a completion; a client that disconnects has the rerun stopped, and nothing recorded."""
    members = await read_body(exchange.request, lambda: json_object(exchange.request, may_be_empty=True))
    asked = validated(VerifyRequest, honored_members(members, VERIFY_PARAMETERS))
    exchange.request.watch_connection()
    verification = await exchange.services.replays.verify.run(
        VerifyCommand(
            principal=exchange.principal,
            completion_id=possible_completion(completion_id),
            other_versions=bool(asked.other_versions),
            request_id=exchange.request.request_id,
        )
    )
    return json_answer(verification_answer(verification))


def verification_answer(verification: Verification) -> CompletionVerification:
    """A verification on the wire."""
    event = verification.event
    return CompletionVerification(
        id=event.completion_id,
        session_id=event.session_id,
        model=event.model_id,
        verdict=event.verdict.value,
        obstacle=event.obstacle,
        reason=event.reason,
        compared_tokens=event.compared_tokens,
        partial=event.partial,
        divergence=None if verification.divergence is None else _divergence(verification.divergence),
        changed=[ChangedPart(name=one.name, recorded=one.recorded, now=one.now) for one in verification.changed],
        position=verification.position,
        verified_at=event.verified_at_us // 1_000_000,
    )


def _divergence(parted: Divergence) -> DivergedAt:
    return DivergedAt(
        choice=parted.choice,
        position=parted.position,
        recorded=_said(parted.recorded_token, parted.recorded_text),
        rerun=_said(parted.rerun_token, parted.rerun_text),
        logit_gap=parted.logit_gap,
    )


def _said(token_id: int | None, text: str | None) -> SaidToken | None:
    return None if token_id is None else SaidToken(token_id=token_id, text=text)
