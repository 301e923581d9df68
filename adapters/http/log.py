"""GET /v1/log/…: signed checkpoints, and proofs over the log's tree, for auditors and their programs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import IntQuery, QueryParameter
from manent.adapters.http.wire_log import Checkpoint, CheckpointList, ConsistencyProof, InclusionProof
from manent.domain.errors import StoreUnavailable
from manent.domain.transparency import KeptCheckpoint, require_audit
from manent.domain.usecases.issue_checkpoint import LIMIT_MAX, IssueCheckpoint
from manent.domain.usecases.prove_log import ProveLog

POSITION_MAX = 2**63 - 1

CHECKPOINTS_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="after", says="last_id of the page before", minimum=-1, maximum=POSITION_MAX, default=-1),
    IntQuery(name="limit", says="how many checkpoints to return", minimum=1, maximum=LIMIT_MAX, default=100),
)
INCLUSION_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="position", says="of the event to prove; required", minimum=1, maximum=POSITION_MAX),
    IntQuery(name="size", says="of the tree; without it, of the whole log", minimum=1, maximum=POSITION_MAX),
)
CONSISTENCY_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="old", says="size of the earlier tree; required", minimum=0, maximum=POSITION_MAX),
    IntQuery(name="new", says="size of the later tree; without it, of the whole log", minimum=0, maximum=POSITION_MAX),
)
LOG_ERRORS = (
    "invalid_type",
    "invalid_value",
    "unknown_parameter",
    "missing_required_parameter",
    "permission_denied",
    "store_unavailable",
    "checkpoint_refused",
    "signing_key_unusable",
    "log_corrupt",
    "internal_error",
)


async def issue_checkpoint(exchange: Exchange) -> HTTPResponse:
    """A signed checkpoint of the log as it stands."""
    return json_answer(_checkpoint(await _checkpoints(exchange).run()))


async def list_checkpoints(exchange: Exchange) -> HTTPResponse:
    """The checkpoints that were issued, smallest tree first."""
    query = exchange.query
    page, has_more = await _checkpoints(exchange).page(after_size=query["after"], limit=query["limit"])
    return json_answer(
        CheckpointList(
            data=[_checkpoint(kept) for kept in page],
            first_id=str(page[0].size) if page else None,
            last_id=str(page[-1].size) if page else None,
            has_more=has_more,
        )
    )


async def prove_inclusion(exchange: Exchange) -> HTTPResponse:
    """That an event is in the tree."""
    proof = await _proofs(exchange).inclusion(_required(exchange, "position"), size=exchange.query["size"])
    return json_answer(
        InclusionProof(
            position=proof.position,
            size=proof.tree.size,
            root=_base64(proof.tree.root),
            hashes=[_base64(one) for one in proof.hashes],
        )
    )


async def prove_consistency(exchange: Exchange) -> HTTPResponse:
    """That a tree is the beginning of a later one."""
    proof = await _proofs(exchange).consistency(_required(exchange, "old"), new=exchange.query["new"])
    return json_answer(
        ConsistencyProof(
            old=proof.old.size,
            new=proof.new.size,
            old_root=_base64(proof.old.root),
            new_root=_base64(proof.new.root),
            hashes=[_base64(one) for one in proof.hashes],
        )
    )


LOG_ROUTES: Sequence[tuple[Any, ...]] = (
    ("issueCheckpoint", "/log/checkpoint", issue_checkpoint, "Sign the log as it stands", Checkpoint, ()),
    (
        "listCheckpoints",
        "/log/checkpoints",
        list_checkpoints,
        "List the signed checkpoints",
        CheckpointList,
        CHECKPOINTS_QUERY,
    ),
    (
        "proveInclusion",
        "/log/proof/inclusion",
        prove_inclusion,
        "Prove that an event is in the log",
        InclusionProof,
        INCLUSION_QUERY,
    ),
    (
        "proveConsistency",
        "/log/proof/consistency",
        prove_consistency,
        "Prove that the log continues an earlier one",
        ConsistencyProof,
        CONSISTENCY_QUERY,
    ),
)
"""Name, path, handler, summary, answer and query of each route."""


def _checkpoints(exchange: Exchange) -> IssueCheckpoint:
    require_audit(exchange.principal)
    if exchange.services.checkpoints is None:
        raise StoreUnavailable("this server has no key to sign checkpoints with")
    return exchange.services.checkpoints


def _proofs(exchange: Exchange) -> ProveLog:
    require_audit(exchange.principal)
    if exchange.services.proofs is None:
        raise StoreUnavailable("this server proves nothing of its log")
    return exchange.services.proofs


def _required(exchange: Exchange, name: str) -> int:
    value: int | None = exchange.query[name]
    if value is None:
        raise RequestRefused("missing_required_parameter", f"Missing required query parameter: '{name}'.", param=name)
    return value


def _checkpoint(kept: KeptCheckpoint) -> Checkpoint:
    origin, _, root = kept.note.split("\n")[:3]
    return Checkpoint(size=kept.size, origin=origin, root=root, issued_at_us=kept.issued_at_us, note=kept.note)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
