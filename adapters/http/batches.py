"""Batches over HTTP: made, listed, looked at, called off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http.answers import members_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, STORE_ERRORS, Route
from manent.adapters.http.stored import page_members
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_files import Batch, BatchList, BatchRequest
from manent.domain.access import Scope
from manent.domain.batches import BatchState, BatchStatus
from manent.domain.usecases.manage_batches import BatchWish

BATCHES_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after", says="last_id of the page before"),
    IntQuery(name="limit", says="how many to return", minimum=1, maximum=100, default=20),
)


async def create_batch(exchange: Exchange) -> HTTPResponse:
    """Make a batch; it is worked on in the background."""
    asked = validated(BatchRequest, json_object(exchange.request))
    wish = BatchWish(
        input_file_id=asked.input_file_id,
        endpoint=asked.endpoint,
        completion_window=asked.completion_window,
        metadata=asked.metadata or {},
        output_expires_after_s=None if asked.output_expires_after is None else asked.output_expires_after.seconds,
    )
    state = await exchange.services.batches.create(exchange.principal, wish, request_id=exchange.request.request_id)
    return members_answer(batch_members(state))


async def list_batches(exchange: Exchange) -> HTTPResponse:
    """A page of one's own, the newest first."""
    query = exchange.query
    page = await exchange.services.batches.page(exchange.principal, after=query["after"], limit=query["limit"])
    return members_answer(page_members([batch_members(state) for state in page.batches], has_more=page.has_more))


async def retrieve_batch(exchange: Exchange, batch_id: str) -> HTTPResponse:
    """How a batch stands."""
    return members_answer(batch_members(await exchange.services.batches.get(exchange.principal, batch_id)))


async def cancel_batch(exchange: Exchange, batch_id: str) -> HTTPResponse:
    """Call a batch off; what is answered stays."""
    state = await exchange.services.batches.cancel(exchange.principal, batch_id, request_id=exchange.request.request_id)
    return members_answer(batch_members(state))


def batch_members(state: BatchState) -> dict[str, Any]:
    """A batch as the wire has it, a ``Batch``."""
    created = state.created
    times = {
        "created_at": created.created_at_us,
        "in_progress_at": state.in_progress_at_us,
        "expires_at": created.expires_at_us,
        "finalizing_at": state.finalizing_at_us,
        "cancelling_at": state.cancelling_at_us,
        **{
            f"{status}_at": state.ended_at_us if state.status is status else None
            for status in (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)
        },
    }
    mistakes = [
        {"code": mistake.code, "message": mistake.message, "line": mistake.line, "param": mistake.param}
        for mistake in state.mistakes
    ]
    return {
        "id": created.batch_id,
        "object": "batch",
        "endpoint": created.endpoint,
        "errors": {"object": "list", "data": mistakes} if mistakes else None,
        "input_file_id": created.input_file_id,
        "completion_window": created.completion_window,
        "status": state.status.value,
        "output_file_id": state.output_file_id,
        "error_file_id": state.error_file_id,
        **{name: None if at_us is None else at_us // 1_000_000 for name, at_us in times.items()},
        "request_counts": {"total": state.total, "completed": state.completed, "failed": state.failed},
        "metadata": dict(created.metadata) or None,
    }


_READING = ("unknown_parameter", "invalid_type", "invalid_value", "log_corrupt", *STORE_ERRORS)
_BATCH = "/batches/<batch_id:str>"

BATCH_ROUTES: Sequence[Route] = (
    Route(
        name="createBatch",
        method="POST",
        path="/batches",
        handler=create_batch,
        summary="Have the requests of a file answered in the background",
        tag="Batches",
        body=BatchRequest,
        answer=Batch,
        errors=(*BODY_ERRORS, *BODY_LIMITS, "file_not_found", "too_many_batches", *STORE_ERRORS),
        scope=Scope.CHAT,
    ),
    Route(
        name="listBatches",
        method="GET",
        path="/batches",
        handler=list_batches,
        summary="List batches",
        tag="Batches",
        answer=BatchList,
        query=BATCHES_QUERY,
        errors=_READING,
        scope=Scope.CHAT,
    ),
    Route(
        name="retrieveBatch",
        method="GET",
        path=_BATCH,
        handler=retrieve_batch,
        summary="Retrieve a batch",
        tag="Batches",
        answer=Batch,
        errors=(*_READING, "batch_not_found"),
        scope=Scope.CHAT,
    ),
    Route(
        name="cancelBatch",
        method="POST",
        path=f"{_BATCH}/cancel",
        handler=cancel_batch,
        summary="Call a batch off; what is answered stays",
        tag="Batches",
        answer=Batch,
        errors=(*_READING, *BODY_LIMITS, "batch_not_found", "batch_ended", "version_conflict"),
        scope=Scope.CHAT,
    ),
)
