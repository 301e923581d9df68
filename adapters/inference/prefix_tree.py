"""A radix tree of token sequences: which prefixes are known, and what is kept of each piece. Knows no MLX and no disk.

A node is the piece between two places where sequences part, or where one of them was kept. What many sequences begin
with is therefore kept once, however many go on from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

TOKEN_BYTES = 4


class Segment(Protocol):
    """What attention layers keep of some successive tokens. Immutable."""

    @property
    def nbytes(self) -> int:
        """What it really holds, in bytes."""
        ...

    def part(self, start: int, stop: int) -> Self:
        """Tokens ``start`` to ``stop`` of it, in memory of their own; all of them is the segment itself."""
        ...


class Snapshot(Protocol):
    """The state of layers that cannot be cut (recurrent ones, sliding windows) behind a token. Immutable."""

    @property
    def nbytes(self) -> int:
        """What it really holds, in bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPiece:
    """A file that holds the segment of tokens ``start`` to ``stop`` of a sequence, and perhaps a snapshot behind it."""

    name: str
    start: int
    stop: int
    has_snapshot: bool
    size_bytes: int
    conversation: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class PrefixNode:
    """Tokens ``start`` to ``stop`` of every sequence that runs through here, and what is kept of them.

    ``segment`` belongs to these tokens, ``snapshot`` to the place behind the last of them; the two ``…_file`` say where
    the same lies on disk. ``conversations`` are those that these tokens belong to. ``prefix_value`` judges by ``uses``,
    ``base`` and ``touched``.
    """

    edge: bytes
    start: int
    parent: PrefixNode | None
    children: dict[bytes, PrefixNode] = field(default_factory=dict)
    segment: Segment | None = None
    snapshot: Snapshot | None = None
    segment_file: StoredPiece | None = None
    snapshot_file: StoredPiece | None = None
    conversations: set[str] = field(default_factory=set)
    uses: int = 0
    base: float = 0.0
    touched: int = 0

    @property
    def length(self) -> int:
        """How many tokens it stands for."""
        return len(self.edge) // TOKEN_BYTES

    @property
    def stop(self) -> int:
        """The place behind its last token, counted from the beginning of the sequence."""
        return self.start + self.length

    @property
    def nbytes(self) -> int:
        """What it keeps in memory, in bytes."""
        return sum(part.nbytes for part in (self.segment, self.snapshot) if part is not None)

    @property
    def in_memory(self) -> bool:
        """Whether it keeps anything there."""
        return self.segment is not None or self.snapshot is not None

    @property
    def known_only(self) -> bool:
        """Whether nothing is left of it but the knowledge that it was there."""
        return not self.in_memory and self.segment_file is None and self.snapshot_file is None

    def ancestors(self) -> Iterator[PrefixNode]:
        """The nodes in front of it, nearest first, without the root."""
        node = self.parent
        while node is not None and node.parent is not None:
            yield node
            node = node.parent

    def cut(self, tokens: int) -> PrefixNode:
        """Split in two; this node stays the hinder part, and the new one in front of it is returned."""
        at, parent = tokens * TOKEN_BYTES, self.parent
        if parent is None or not 0 < at < len(self.edge):
            raise ValueError(f"{self.length} tokens cannot be cut behind {tokens}")
        front = PrefixNode(
            edge=self.edge[:at],
            start=self.start,
            parent=parent,
            segment_file=self.segment_file,
            conversations=set(self.conversations),
            uses=self.uses,
            base=self.base,
            touched=self.touched,
        )
        if self.segment is not None:
            whole, length = self.segment, self.length
            front.segment, self.segment = whole.part(0, tokens), whole.part(tokens, length)
        parent.children[front.edge[:TOKEN_BYTES]] = front
        self.edge, self.start, self.parent = self.edge[at:], self.start + tokens, front
        front.children[self.edge[:TOKEN_BYTES]] = self
        return front

    def detach(self) -> None:
        """Take this node, without children, out of its tree; and those in front of it that were there for it alone."""
        node = self
        while node.parent is not None and not node.children:
            parent = node.parent
            del parent.children[node.edge[:TOKEN_BYTES]]
            node.parent = None
            node = parent
            if not node.known_only:
                break


class PrefixTree:
    """All sequences of one scope. Token sequences are given as ``packed`` bytes."""

    def __init__(self) -> None:
        self.root = PrefixNode(edge=b"", start=0, parent=None)

    def walk(self, tokens: bytes) -> tuple[list[PrefixNode], int]:
        """The nodes along a sequence, the last one perhaps only in part, and how many tokens of it are known."""
        node, path, known = self.root, [], 0
        while (child := node.children.get(tokens[known * TOKEN_BYTES : (known + 1) * TOKEN_BYTES])) is not None:
            path.append(child)
            rest = tokens[known * TOKEN_BYTES : known * TOKEN_BYTES + len(child.edge)]
            same = common_tokens(child.edge, rest)
            known += same
            if same < child.length:
                break
            node = child
        return path, known

    def reach(self, tokens: bytes) -> list[PrefixNode]:
        """The nodes along a sequence, made and split where needed, so that the last one ends with it."""
        path, known = self.walk(tokens)
        if path and path[-1].stop > known:
            path[-1] = path[-1].cut(known - path[-1].start)
        if known * TOKEN_BYTES < len(tokens):
            parent = path[-1] if path else self.root
            leaf = PrefixNode(edge=tokens[known * TOKEN_BYTES :], start=known, parent=parent)
            parent.children[leaf.edge[:TOKEN_BYTES]] = leaf
            path.append(leaf)
        return path

    def __iter__(self) -> Iterator[PrefixNode]:
        """All nodes but the root; a node comes before what goes on from it."""
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())


def packed(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian unsigned 32-bit integers: a fifth of the memory, and compared by the machine."""
    return struct.pack(f"<{len(token_ids)}I", *token_ids)


def common_tokens(one: bytes, other: bytes) -> int:
    """How many leading tokens two packed sequences have in common."""
    low, high = 0, min(len(one), len(other)) // TOKEN_BYTES
    if one[: high * TOKEN_BYTES] == other[: high * TOKEN_BYTES]:
        return high
    while low + 1 < high:  # the first ``low`` are the same, the first ``high`` are not
        middle = (low + high) // 2
        span = slice(low * TOKEN_BYTES, middle * TOKEN_BYTES)
        if one[span] == other[span]:
            low = middle
        else:
            high = middle
    return low
