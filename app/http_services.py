"""What the HTTP adapter calls, of the use cases of a Manent: the one place where that is listed."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from manent.adapters.http.context import HttpServices, Look, Scrape, Webhooks
from manent.adapters.http.principal import Authenticate
from manent.app.use_case_set import UseCases
from manent.domain.images import ImageReader
from manent.domain.ports import Ids
from manent.domain.telemetry import Telemetry
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.manage_keys import ManageKeys
from manent.domain.usecases.prove_log import ProveLog
from manent.domain.usecases.run_middleware import MiddlewareChain


class BesideUseCases(TypedDict):
    """What the HTTP adapter calls beside them; what is left out is as ``HttpServices`` has it."""

    ids: Ids
    images: ImageReader
    authenticate: Authenticate
    health: Look
    version: str
    proofs: NotRequired[ProveLog]
    checkpoints: NotRequired[IssueCheckpoint]
    webhooks: NotRequired[Webhooks]
    middleware: NotRequired[MiddlewareChain]
    keys: NotRequired[ManageKeys | None]
    telemetry: NotRequired[Telemetry]
    scrape: NotRequired[Scrape | None]


def http_services(use_cases: UseCases, **beside: Unpack[BesideUseCases]) -> HttpServices:
    """The services of the use cases and of what is beside them."""
    return HttpServices(
        chat=use_cases.complete_chat,
        embeddings=use_cases.create_embeddings,
        models=use_cases.manage_models,
        sessions=use_cases.manage_sessions,
        session_list=use_cases.list_sessions,
        session_messages=use_cases.session_messages,
        log=use_cases.query_log,
        audit_log=use_cases.audit_log,
        follow=use_cases.follow_log,
        replays=use_cases.replays,
        responses=use_cases.responses,
        stored=use_cases.stored_completions,
        resume=use_cases.resume,
        engine=use_cases.engine,
        counting=use_cases.counting,
        **beside,
    )
