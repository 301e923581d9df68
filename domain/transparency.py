"""What makes the log provable to outsiders: tree heads, checkpoints, proofs, and the ports that keep and sign them.

The hashes are in ``manent.domain.merkle``; the formats (C2SP) and the key are the adapters' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from manent.domain.access import Principal, Scope, has_scope
from manent.domain.errors import DomainError, PermissionDenied


class CheckpointRefused(DomainError):
    """The signer refused: the log is not a continuation of what was signed before."""

    code = "checkpoint_refused"


class CheckpointInvalid(DomainError):
    """A checkpoint is malformed, or not signed by the log's key."""

    code = "checkpoint_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """A tree's size and root: all that a checkpoint says of a log."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCheckpoint:
    """A checkpoint as it was issued: ``note`` is the signed text."""

    size: int
    issued_at_us: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredHead:
    """The head's row as it stands, unchecked."""

    log_id: str
    size: int
    frontier: bytes
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with the log: between two positions (both included), as near as the hashes can tell."""

    position: int
    last_position: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderPage:
    """Canonical bytes of the headers of successive positions; fewer than asked for where a position is missing."""

    headers: Sequence[bytes]
    finding: Finding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionMark:
    """An event that opens or closes a completion; its id is None where the payload was erased."""

    position: int
    tenant: str
    stream_id: str
    opens: bool
    completion_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadPage:
    """What the payloads of some positions turned out to be."""

    erased: int
    marks: Sequence[CompletionMark]
    finding: Finding | None = None


class AuditedLog(Protocol):
    """The log's rows as they stand in the database, read without trust. Ranges of positions include both ends."""

    async def head(self) -> StoredHead:
        """The head's row."""
        ...

    async def headers(self, first: int, last: int) -> HeaderPage:
        """The headers as they were hashed, if nothing was changed, up to the first position that is missing."""
        ...

    async def nodes(self, level: int, first: int, last: int) -> Mapping[int, bytes]:
        """The stored nodes of a level, by index."""
        ...

    async def payloads(self, first: int, last: int) -> PayloadPage:
        """Compare payloads with their headers' digests; the first that differs is the finding."""
        ...

    async def disorder(self, first: int, last: int, log_id: str) -> Finding | None:
        """The first header of another log, or recorded before the one in front of it."""
        ...

    async def stream_gap(self, after: int, last: int) -> Finding | None:
        """The first event above ``after`` that does not continue its stream by one."""
        ...

    async def stray(self, size: int, *, payloads: bool) -> Finding | None:
        """A row that no log of ``size`` events has: a header behind the head, a node; a payload of no event."""
        ...

    async def marks_before(self, tenant: str, stream_id: str, position: int) -> Sequence[CompletionMark]:
        """What opened and closed completions in a stream up to ``position``."""
        ...


class CheckpointStore(Protocol):
    """The checkpoints that were issued, kept beside the log and never changed."""

    async def log_id(self) -> str:
        """The log's identity."""
        ...

    async def keep(self, checkpoint: KeptCheckpoint) -> None:
        """Keep it; one of the same size stands already or is added."""
        ...

    async def page(self, *, after_size: int, limit: int) -> Sequence[KeptCheckpoint]:
        """At most ``limit`` checkpoints of trees larger than ``after_size``, in the order of their size."""
        ...


class CheckpointVerifier(Protocol):
    """Reads checkpoints of one log, and trusts one key."""

    def opened(self, note: str) -> TreeHead:
        """What a signed checkpoint says.

        Raises:
            CheckpointInvalid: it is malformed, of another log, or its signature does not verify.
        """
        ...


class CheckpointSigner(CheckpointVerifier, Protocol):
    """Signs tree heads, and remembers the last one outside the database."""

    async def last(self) -> TreeHead | None:
        """The tree head that was signed last."""
        ...

    async def sign(self, head: TreeHead, consistency: Sequence[bytes]) -> str:
        """The signed checkpoint; ``consistency`` proves that the tree continues the one that was signed last.

        Raises:
            CheckpointRefused: it does not.
        """
        ...


def require_audit(principal: Principal) -> None:
    """Proofs are for auditors.

    Raises:
        PermissionDenied: ``principal`` has not the scope ``audit``.
    """
    if not has_scope(principal, Scope.AUDIT):
        raise PermissionDenied("reading the event log needs the scope 'audit'")
