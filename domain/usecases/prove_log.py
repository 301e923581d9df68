"""Proofs of the log, in O(log n) reads: that an event is in a tree, that a tree continues an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from manent.domain.errors import InvalidValue, LogCorrupt
from manent.domain.merkle import EMPTY_ROOT, HASH_BYTES, NodeReader, consistency_proof, inclusion_proof, range_hash
from manent.domain.ports import EventStore
from manent.domain.records import EventFilter, LogEntry
from manent.domain.transparency import TreeHead


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """The hashes that lead from the leaf at ``position`` to the root of ``tree``."""

    position: int
    tree: TreeHead
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """The hashes that show that ``old`` is the beginning of ``new``."""

    old: TreeHead
    new: TreeHead
    hashes: Sequence[bytes]


class ProveLog:
    """What the store's tree proves. Whoever calls has checked who asks."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def inclusion(self, position: int, *, size: int | None = None) -> InclusionProof:
        """That the event at ``position`` is in the tree of ``size`` events (None: of all).

        Raises:
            InvalidValue: the log has no such position or size.
        """
        size = await self._checked_size(size, param="size")
        if not 1 <= position <= size:
            raise InvalidValue(f"position {position} is not in a log of {size} events", param="position")
        hashes = await self._computed(lambda read: inclusion_proof(position - 1, size, read))
        return InclusionProof(position=position, tree=await self.tree_head(size), hashes=hashes)

    async def consistency(self, old: int, *, new: int | None = None) -> ConsistencyProof:
        """That the tree of ``old`` events is the beginning of the one of ``new`` (None: of all).

        Raises:
            InvalidValue: the log has no such sizes, or they are in the wrong order.
        """
        new = await self._checked_size(new, param="new")
        if not 0 <= old <= new:
            raise InvalidValue(f"a log of {old} events is not the beginning of one of {new}", param="old")
        hashes = await self._computed(lambda read: consistency_proof(old, new, read))
        return ConsistencyProof(old=await self.tree_head(old), new=await self.tree_head(new), hashes=hashes)

    async def tree_head(self, size: int) -> TreeHead:
        """The head of the tree of the first ``size`` events."""
        head = await self._store.head()
        if size in {0, head.size}:
            return TreeHead(size=size, root=head.root if size else EMPTY_ROOT)
        (root,) = await self._computed(lambda read: [range_hash(0, size, read)])
        return TreeHead(size=size, root=root)

    async def entry(self, position: int) -> LogEntry:
        """The event at ``position``, of whatever tenant."""
        found = await self._store.query(EventFilter(min_position=position, max_position=position), limit=1)
        if not found:
            raise InvalidValue(f"the log has no position {position}", param="position")
        return found[0]

    async def _checked_size(self, size: int | None, *, param: str) -> int:
        now = (await self._store.head()).size
        if size is not None and not 0 <= size <= now:
            raise InvalidValue(f"the log has {now} events, not {size}", param=param)
        return now if size is None else size

    async def _computed(self, compute: Callable[[NodeReader], list[bytes]]) -> list[bytes]:
        """Run ``compute`` once to learn which nodes it reads, read them, and run it on them."""
        wanted: dict[tuple[int, int], bytes] = {}

        def note(level: int, index: int) -> bytes:
            wanted[level, index] = bytes(HASH_BYTES)
            return bytes(HASH_BYTES)

        compute(note)
        for level, index in wanted:
            try:
                wanted[level, index] = await self._store.tree_node(level, index)
            except LookupError as error:
                raise LogCorrupt(f"{error}; `manent log verify` says more") from error
        return compute(lambda level, index: wanted[level, index])
