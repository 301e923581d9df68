"""What others may add to a server: middleware around requests, and engines. See docs/how-to/extend.md.

A package offers one through an entry point of the group ``manent.middleware`` or ``manent.engines``, whose object is a
factory as below. It is loaded only where ``MANENT_PLUGINS`` names it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from manent.domain.errors import DomainError
from manent.domain.ports import InferenceEngine


class PluginError(Exception):
    """A plugin cannot be found, loaded, started or used; the message names it."""


class Refusal(DomainError):
    """What a middleware raises to refuse a request; clients get 403 with its message."""

    code = "refused_by_middleware"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """A request, as a middleware may know it: who asks for what, and nothing of what is said.

    ``operation`` is the operation's name in ``/openapi.json``; ``path`` its path as requested, without the query.
    """

    operation: str
    method: str
    path: str
    tenant: str
    subject: str
    request_id: str
    correlation_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """How a request was answered: the HTTP status, 499 for a client that left, and the time from its arrival."""

    status: int
    elapsed_s: float


class Middleware(Protocol):
    """Stands around every request below ``/v1``: in the order of ``MANENT_PLUGINS`` before, and in reverse after."""

    async def before(self, request: RequestFacts) -> None:
        """Return to let the request pass.

        Raises:
            Refusal: it may not. Whatever else is raised fails this request with 500, as a wait over five seconds does.
        """
        ...

    async def after(self, request: RequestFacts, answer: AnswerFacts) -> None:
        """Called once the request was answered, where ``before`` let it pass; what it raises is logged."""
        ...


MiddlewareFactory = Callable[[], Middleware]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """Where an engine finds what it needs: the home, and the registry of models (which need not be there)."""

    home: Path
    models_file: Path
    models_folder: Path


EngineFactory = Callable[[EngineContext], AbstractAsyncContextManager[InferenceEngine]]
"""Starts an engine on entering, and stops it on leaving."""
