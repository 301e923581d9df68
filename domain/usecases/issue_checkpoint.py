"""Checkpoints: issued on demand and on a timer, signed only where they continue the last one, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from manent.domain.errors import DomainError, InvalidValue
from manent.domain.ports import Clock, EventStore
from manent.domain.transparency import CheckpointRefused, CheckpointSigner, CheckpointStore, KeptCheckpoint, TreeHead
from manent.domain.usecases.prove_log import ProveLog

LIMIT_MAX = 1000
ATTEMPTS = 3


class IssueCheckpoint:
    """Signs the head of the log. Whoever calls has checked who asks.

    ``last`` is the checkpoint that it signed last, and ``confirmed_at_us`` when it last found that one up to date.
    """

    def __init__(self, *, store: EventStore, signer: CheckpointSigner, kept: CheckpointStore, clock: Clock) -> None:
        self._store = store
        self._proofs = ProveLog(store)
        self._signer = signer
        self._kept = kept
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self.last: KeptCheckpoint | None = None
        self.confirmed_at_us: int | None = None
        self._confirmed_s: float | None = None

    async def run(self) -> KeptCheckpoint:
        """A signed checkpoint of the log as it stands; the one that there is, where nothing was appended since.

        Raises:
            CheckpointRefused: the log is not a continuation of the tree that was signed last.
        """
        async with self._one_at_a_time:
            for _ in range(ATTEMPTS):
                last = await self._signer.last()
                try:
                    return await self._issued(last)
                except CheckpointRefused:
                    # Another process may have signed meanwhile; then the proof was for the wrong tree.
                    if await self._signer.last() == last:
                        raise
            return await self._issued(await self._signer.last())

    async def _issued(self, last: TreeHead | None) -> KeptCheckpoint:
        frontier = await self._store.head()
        head = TreeHead(size=frontier.size, root=frontier.root)
        proof: Sequence[bytes] = ()
        if last is not None:
            if last.size > head.size:
                raise CheckpointRefused(refusal(last, head))
            proof = (await self._proofs.consistency(last.size, new=head.size)).hashes
        note = await self._signer.sign(head, proof)
        issued = KeptCheckpoint(size=head.size, issued_at_us=self._clock.now_us(), note=note)
        await self._kept.keep(issued)
        same = await self._kept.page(after_size=head.size - 1, limit=1)
        self.last = same[0] if same and same[0].note == note else issued
        self.confirmed_at_us, self._confirmed_s = self._clock.now_us(), asyncio.get_running_loop().time()
        return self.last

    @property
    def age_s(self) -> float | None:
        """How long ago the last checkpoint was found up to date, by a clock that nobody sets; None where none was."""
        return None if self._confirmed_s is None else asyncio.get_running_loop().time() - self._confirmed_s

    async def page(self, *, after_size: int, limit: int) -> tuple[Sequence[KeptCheckpoint], bool]:
        """Kept checkpoints of trees larger than ``after_size``, and whether more follow."""
        if not 1 <= limit <= LIMIT_MAX:
            raise InvalidValue(f"limit is {limit}; it must be between 1 and {LIMIT_MAX}", param="limit")
        found = await self._kept.page(after_size=after_size, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def run_every(self, interval_s: float, *, failed: Callable[[DomainError], None]) -> None:
        """Issue one every ``interval_s`` until cancelled; a refusal is told and does not end the rounds."""
        while True:
            try:
                await self.run()
            except DomainError as error:
                failed(error)
            await self._clock.sleep(interval_s)


def refusal(last: TreeHead, head: TreeHead) -> str:
    """Why ``head`` is not signed after ``last``, and what to do."""
    return (
        f"the log has {head.size} events and is not a continuation of the {last.size} that were signed last: an old "
        "backup seems to have been restored, or the log was rewritten. Nothing is signed; restore the log that "
        "continues the last checkpoint, or, to start over, give the log a new MANENT_HOME"
    )
