"""The tree of RFC 6962, section 2.1: hashes, the frontier that grows it, and the nodes that a proof needs.

Pure functions over hashes; where hashes are kept is the store's business. Sizes and indexes count leaves; the node at
(level, index) covers the leaves from index * 2**level on, 2**level of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
# Of the nodes above the leaves, those of every eighth level are stored: one for 256 leaves, 65,536 and so on. What a
# proof needs between them is made of at most 256 hashes of the stored level below.
STORED_LEVEL_STEP = 8
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed to grow a tree: the roots of its perfect subtrees, the largest first (one per bit of size)."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size.bit_count() != len(self.hashes) or any(len(h) != HASH_BYTES for h in self.hashes):
            raise ValueError(f"a tree of {self.size} leaves has not {len(self.hashes)} perfect subtrees")

    @property
    def root(self) -> bytes:
        """The tree's hash (RFC 6962: MTH)."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def extended(self, leaves: Sequence[bytes], completed: Callable[[int, int, bytes], None] | None = None) -> Frontier:
        """The frontier after ``leaves`` (leaf hashes); ``completed`` hears of each new node above them.

        It works level by level, from the leaves up, and tells of the nodes in that order.
        """
        sha256 = hashlib.sha256
        waiting, kept = list(self.hashes), list[bytes]()
        nodes, level = list(leaves), 0
        while nodes or waiting:
            first = self.size >> level
            if first & 1:  # the node before them is in the frontier, and waited for its sibling
                nodes.insert(0, waiting.pop())
            if len(nodes) & 1:
                kept.append(nodes.pop())
            pairs = iter(nodes)
            nodes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            level += 1
            if completed is not None:
                for index, node in enumerate(nodes, first >> 1):
                    completed(level, index, node)
        return Frontier(self.size + len(leaves), tuple(reversed(kept)))


def perfect_ranges(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The fewest perfect nodes (level, index) over the leaves from ``start`` up to ``end``, from left to right."""
    while start < end:
        level = (start & -start).bit_length() - 1 if start else (end - start).bit_length() - 1
        while start + (1 << level) > end:
            level -= 1
        yield level, start >> level
        start += 1 << level


def range_hash(start: int, end: int, read: NodeReader) -> bytes:
    """The hash of the leaves from ``start`` up to ``end`` as RFC 6962 has it where such a subtree occurs in a tree."""
    hashes = [read(level, index) for level, index in perfect_ranges(start, end)]
    result = hashes.pop()
    while hashes:
        result = node_hash(hashes.pop(), result)
    return result


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """PATH(index, D[size]): the hashes that lead from leaf ``index`` to the root of the tree of ``size`` leaves."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(range_hash(middle, end, read))
            end = middle
        else:
            proof.append(range_hash(start, middle, read))
            start = middle
    return proof[::-1]


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """PROOF(old, D[new]): that the tree of ``old`` leaves is the beginning of the tree of ``new`` leaves."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in {0, new}:
        return []
    proof: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(range_hash(middle, end, read))
            end = middle
        else:
            proof.append(range_hash(start, middle, read))
            start, whole = middle, False
    if not whole:
        proof.append(range_hash(start, end, read))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``proof`` shows that ``leaf`` (a leaf hash) is number ``index`` of the tree (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether ``proof`` shows that the old tree is the beginning of the new one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        return False
    if old in {0, new}:
        return not proof and (old_root == new_root if old else old_root == EMPTY_ROOT)
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(length: int) -> int:
    """The largest power of two below ``length``."""
    return 1 << (length - 1).bit_length() - 1
