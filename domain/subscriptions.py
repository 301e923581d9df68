"""Named checkpoints in the log, leased to one worker at a time: what projectors need so that nothing is done twice.

A lease has a token that grows with each acquisition, and every write says with which token it is made (a fencing
token, as in Kleppmann, "How to do distributed locking"): a worker that slept through the end of its lease finds out
at its next write, and that write is not applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to process a subscription until ``expires_at_us``; ``position`` is its checkpoint."""

    name: str
    owner: str
    token: int
    position: int
    ttl_s: float
    expires_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBy:
    """Somebody else has the lease; without a word from them it ends at ``expires_at_us``."""

    owner: str
    expires_at_us: int


class SubscriptionStore(Protocol):
    """Checkpoints and leases. Every method raises StoreUnavailable where the database refuses or does not answer."""

    async def acquire(self, name: str, *, owner: str, ttl_s: float) -> Lease | HeldBy:
        """The lease, with a new token, if nobody holds it; a subscription that is new begins at position 0.

        A lease is held against everybody, also against its own owner's next life.
        """
        ...

    async def renew(self, lease: Lease) -> Lease:
        """The lease for its ``ttl_s`` from now on.

        Raises:
            LeaseLost: somebody acquired it since, or it was released.
        """
        ...

    async def advance(self, lease: Lease, position: int) -> Lease:
        """Move the checkpoint to ``position`` and renew the lease, in one write.

        Raises:
            LeaseLost: somebody acquired it since, or it was released; nothing was written.
            InvalidValue: the checkpoint is beyond ``position`` already.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Let the next worker in at once; nothing happens where the lease is lost already."""
        ...

    async def forget(self, lease: Lease) -> None:
        """Drop the subscription, whose work is done for good; nothing happens where the lease is lost."""
        ...

    async def position(self, name: str) -> int:
        """The checkpoint; 0 where there is no such subscription."""
        ...

    async def names(self, prefix: str) -> Sequence[str]:
        """The subscriptions whose names begin with ``prefix``, in their order."""
        ...
