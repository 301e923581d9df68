"""The tree, grown anew from leaves and compared on the way with stored nodes, checkpoints and the head."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from manent.domain.merkle import HASH_BYTES, STORED_LEVEL_STEP, Frontier, perfect_ranges
from manent.domain.transparency import AuditedLog, Finding, StoredHead, TreeHead

BLOCK = 1 << STORED_LEVEL_STEP

Root = tuple[int, bytes, str]
"""A size, the root that the tree has to have there, and who says so."""


class TreeCheck:
    """Whole blocks of 256 leaves become one node each, so that a leaf costs two hashes and next to nothing else."""

    def __init__(self, log: AuditedLog) -> None:
        self._log = log
        self._blocks = Frontier()
        self._tail = Frontier()
        self._proven = 0

    @property
    def size(self) -> int:
        """How many leaves were taken."""
        return self._blocks.size * BLOCK + self._tail.size

    @property
    def frontier(self) -> Frontier:
        """The frontier of all leaves taken."""
        return _joined(self._blocks, self._tail)

    @property
    def head(self) -> TreeHead:
        """The head of what was taken."""
        return TreeHead(size=self.size, root=self.frontier.root)

    async def start_at(self, size: int) -> bool:
        """Take the first ``size`` leaves (whole blocks) from the stored nodes; False where one is missing.

        They are proven, or not, by the root of the checkpoint that verification starts from.
        """
        hashes = []
        for level, index in perfect_ranges(0, size // BLOCK):
            stored = level + STORED_LEVEL_STEP
            base = stored - stored % STORED_LEVEL_STEP
            first, count = index << (stored - base), 1 << (stored - base)
            nodes = await self._log.nodes(base, first, first + count - 1)
            if len(nodes) < count or any(len(node) != HASH_BYTES for node in nodes.values()):
                return False
            hashes.append(Frontier().extended([nodes[number] for number in sorted(nodes)]).root)
        self._blocks = Frontier(size // BLOCK, tuple(hashes))
        return True

    @staticmethod
    def missing_start(size: int) -> Finding:
        """What is wrong where ``start_at`` found no nodes."""
        what = "a stored node of the tree is missing or malformed before the saved checkpoint; verify the whole log"
        return Finding(position=1, last_position=max(size, 1), what=what)

    async def extend(self, headers: Sequence[bytes], roots: Sequence[Root]) -> Finding | None:
        """Take the leaves of more headers, from a block's beginning on; ``roots`` lie within, in order of size."""
        sha256 = hashlib.sha256
        leaves = [sha256(b"\x00" + header).digest() for header in headers]
        finding: Finding | None = None
        computed: list[tuple[int, int, bytes]] = []
        before, whole = self.size, len(leaves) // BLOCK
        blocks = _block_roots(leaves[: whole * BLOCK])
        taken = 0
        for size, root, name in roots:
            upto = (size - before) // BLOCK
            self._take(blocks[taken:upto], computed)
            taken = upto
            rest = Frontier().extended(leaves[upto * BLOCK : size - before])
            if finding is None and _joined(self._blocks, rest).root != root:
                finding = self._wrong_root(size, name)
            elif finding is None:
                self._proven = max(self._proven, size)
        self._take(blocks[taken:], computed)
        self._tail = Frontier().extended(leaves[whole * BLOCK :])
        wrong_node = await self._wrong_node(computed)
        both = [one for one in (finding, wrong_node) if one is not None]
        # The narrower range says more; both begin behind what is proven.
        return min(both, key=lambda one: (one.position, one.last_position), default=None)

    def compared_with_head(self, stored: StoredHead) -> Finding | None:
        """Whether frontier and root of the head are those of the leaves; names the first subtree that differs.

        Where there are fewer leaves than the head says, the subtrees that both trees have are compared.
        """
        frontier = self.frontier
        common = zip(perfect_ranges(0, frontier.size), perfect_ranges(0, stored.size), strict=False)
        for number, ((level, index), other) in enumerate(common):
            if (level, index) != other:
                break
            if stored.frontier[number * HASH_BYTES : (number + 1) * HASH_BYTES] != frontier.hashes[number]:
                end = (index + 1) << level
                first = min(max(index << level, self._proven) + 1, end)
                what = "a header is not what was hashed when it was recorded, or the head was changed"
                return Finding(position=first, last_position=end, what=what)
        if frontier.size != stored.size:
            return None
        last = max(frontier.size, 1)
        if stored.frontier != b"".join(frontier.hashes):
            return Finding(position=last, last_position=last, what="the head's frontier has more hashes than its tree")
        if stored.root != frontier.root:
            return Finding(position=last, last_position=last, what="the head's root is not the root of its frontier")
        return None

    def _take(self, blocks: Sequence[bytes], computed: list[tuple[int, int, bytes]]) -> None:
        """Grow the tree by nodes of whole blocks; ``computed`` gets them, and the nodes above that they complete."""
        computed += [(STORED_LEVEL_STEP, index, node) for index, node in enumerate(blocks, self._blocks.size)]
        self._blocks = self._blocks.extended(
            blocks, lambda level, index, made: computed.append((level + STORED_LEVEL_STEP, index, made))
        )

    def _wrong_root(self, size: int, name: str) -> Finding:
        what = f"the first {size} headers are not those of {name}: one was changed, or the log was rewritten"
        return Finding(position=min(self._proven + 1, max(size, 1)), last_position=max(size, 1), what=what)

    async def _wrong_node(self, computed: Sequence[tuple[int, int, bytes]]) -> Finding | None:
        """The first of the computed nodes that is not stored as it should be."""
        for level in sorted({level for level, _, _ in computed if level % STORED_LEVEL_STEP == 0}):
            own = [(index, node) for at, index, node in computed if at == level]
            stored = await self._log.nodes(level, own[0][0], own[-1][0])
            for index, node in own:
                if stored.get(index) != node:
                    state = "is missing from the tree" if index not in stored else "is not what its headers give"
                    what = f"node {index} at level {level} {state}: a header was changed, or the node was"
                    return Finding(position=(index << level) + 1, last_position=(index + 1) << level, what=what)
        return None


def _block_roots(leaves: Sequence[bytes]) -> Sequence[bytes]:
    """The node over each whole block of ``leaves``; a level at a time for all of them."""
    sha256 = hashlib.sha256
    for _ in range(STORED_LEVEL_STEP):
        pairs = iter(leaves)
        leaves = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return leaves


def _joined(blocks: Frontier, tail: Frontier) -> Frontier:
    return Frontier(blocks.size * BLOCK + tail.size, blocks.hashes + tail.hashes)
