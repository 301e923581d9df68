"""Finding stored completions: what a list of them shows, what it can be narrowed by, and who knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from manent.domain.errors import DomainError
from manent.domain.events import DomainEvent


class CompletionRunning(DomainError):
    """The completion has not ended yet; what it says is stored once it has."""

    code = "completion_running"
    param = "completion_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFilter:
    """Which stored completions of an owner; every given field must match. ``model_id`` is that of the registry."""

    tenant: str
    owner: str
    model_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCompletion:
    """A completion that ended well and is shown to its owner; ``position`` is that of its request.

    ``requested`` and ``generated`` are its two events, ErasedEvent where their payloads were destroyed. ``version`` is
    that of the stream of what happened to it since (``stored_events``).
    """

    position: int
    completion_id: str
    owner: str
    metadata: Mapping[str, str]
    version: int
    requested: DomainEvent
    generated: DomainEvent


class StoredCompletionDirectory(Protocol):
    """The stored completions: a projection of the log, which the log's own commits keep.

    Every method raises StoreUnavailable where the database refuses or does not answer.
    """

    async def page(
        self, wanted: StoredFilter, *, after_position: int | None, limit: int, descending: bool
    ) -> list[StoredCompletion]:
        """At most ``limit`` of them in the order of their requests, or against it, behind ``after_position``."""
        ...

    async def find(self, tenant: str, completion_id: str) -> StoredCompletion | None:
        """The one with this id; None where there is none, or it is not shown (any more)."""
        ...

    async def place(self, tenant: str, owner: str, completion_id: str) -> int | None:
        """The position of one of ``owner``'s, also of one that was deleted: a page may begin behind it."""
        ...
