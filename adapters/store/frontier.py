"""The tree in a database: the frontier in one column, nodes of every eighth level, the rest made of headers."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from manent.adapters.store.codec import header_bytes
from manent.adapters.store.schema import event_headers, tree_nodes
from manent.domain.merkle import HASH_BYTES, STORED_LEVEL_STEP, Frontier, leaf_hash
from manent.domain.records import EventHeader

HEADER_FIELDS = tuple(EventHeader.__dataclass_fields__)


def pack_frontier(frontier: Frontier) -> bytes:
    """The hashes of a frontier, one behind the other."""
    return b"".join(frontier.hashes)


def unpack_frontier(size: int, packed: bytes) -> Frontier:
    """A frontier from its size and its packed hashes; ValueError where they do not fit each other."""
    return Frontier(size, tuple(packed[i : i + HASH_BYTES] for i in range(0, len(packed), HASH_BYTES)))


async def read_tree_node(connection: AsyncConnection, level: int, index: int) -> bytes:
    """A perfect node at any level: stored, or made of the at most 128 stored nodes (or headers) below it.

    Raises:
        LookupError: not all of the leaves below it are there.
    """
    base = level - level % STORED_LEVEL_STEP
    first, count = index << (level - base), 1 << (level - base)
    if base == 0:
        columns = [event_headers.c[name] for name in HEADER_FIELDS]
        positions = event_headers.c.position
        query = select(*columns).where(positions > first, positions <= first + count).order_by(positions)
        rows = (await connection.execute(query)).all()
        hashes = [leaf_hash(header_bytes(EventHeader(**dict(zip(HEADER_FIELDS, row, strict=True))))) for row in rows]
    else:
        nodes = tree_nodes.c
        found = select(nodes.hash).where(nodes.level == base, nodes.node >= first, nodes.node < first + count)
        hashes = [row.hash for row in await connection.execute(found.order_by(nodes.node))]
    if len(hashes) != count:
        raise LookupError(f"the tree has no perfect node {index} at level {level}")
    return Frontier().extended(hashes).root
