"""What is kept of evaluated prompts and answers, in memory and on disk, and what of it serves the next prompt.

Exact by token ids, one tree per scope, and nothing is found across scopes. Knows neither MLX nor files: what is kept is
opaque, and a ``StoredPiece`` is a name. Belongs to one thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from manent.adapters.inference.prefix_tree import (
    TOKEN_BYTES,
    PrefixNode,
    PrefixTree,
    Segment,
    Snapshot,
    StoredPiece,
)
from manent.adapters.inference.prefix_value import victims
from manent.domain.caching import CacheMiss

_GONE_KNOWN_MAX = 256
_FORGOTTEN_MAX = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixLimits:
    """``memory_bytes`` bounds what is kept there.

    Fewer than ``keep_min_tokens`` are neither kept for themselves nor reused: evaluating them costs no time.
    """

    memory_bytes: int
    keep_min_tokens: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What serves a prompt: ``nodes`` from its beginning, of which the first ``tokens`` tokens are to be used.

    ``files`` are to be read first. ``known_tokens`` and ``miss`` are as in ``CacheUse``.
    """

    nodes: tuple[PrefixNode, ...] = ()
    tokens: int = 0
    known_tokens: int = 0
    miss: CacheMiss | None = CacheMiss.COLD
    files: tuple[StoredPiece, ...] = ()


class PrefixCache:
    """The prefix trees of all scopes, under one bound of memory."""

    def __init__(self, limits: PrefixLimits, *, needs_snapshots: bool) -> None:
        self._limits = limits
        self._needs_snapshots = needs_snapshots
        self._trees: dict[str, PrefixTree] = {}
        self._gone: deque[PrefixNode] = deque()
        self._forgotten: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._base = 0.0
        self._clock = 0
        self.nbytes = 0
        self.evictions = 0

    def find(self, scope: str, tokens: bytes, *, memory_only: bool = False) -> Found:
        """The longest prefix that can be reused, one token at least being left to evaluate."""
        tree = self._trees.get(scope)
        least, most = self._limits.keep_min_tokens, len(tokens) // TOKEN_BYTES - 1
        if most < least:
            return Found(miss=CacheMiss.TOO_SHORT)
        path, known = tree.walk(tokens) if tree is not None else ([], 0)
        if known < least:
            return Found(known_tokens=known)
        there = _unbroken(path, memory_only=memory_only)
        reach = min(known, most, there[-1].stop if there else 0)
        usable = self._last_snapshot(there, reach, memory_only=memory_only) if self._needs_snapshots else reach
        usable = usable if usable >= least else 0
        nodes = tuple(node for node in there if node.start < usable)
        return Found(
            nodes=nodes,
            tokens=usable,
            known_tokens=known,
            miss=self._why_no_more(path, usable, reach=reach, known=known, most=most),
            files=() if memory_only else self._files(nodes),
        )

    @property
    def pieces(self) -> int:
        """In how many pieces what is in memory is kept."""
        return sum(node.in_memory for node in self._nodes())

    def use(self, nodes: Iterable[PrefixNode], conversation: str | None) -> None:
        """Note that these nodes serve a sequence of this conversation; then bring memory back under its bound."""
        self._clock += 1
        for node in nodes:
            node.uses, node.base, node.touched = node.uses + 1, self._base, self._clock
            if conversation is not None:
                node.conversations.add(conversation)
        self._shrink()

    def missing_from(self, scope: str, tokens: bytes, *, snapshot: bool) -> int | None:
        """Where what should be kept of this sequence begins; None where so little is missing that it is not worth it.

        Args:
            scope: whose.
            tokens: the sequence.
            snapshot: whether there would be a snapshot behind its last token.
        """
        length, least = len(tokens) // TOKEN_BYTES, self._limits.keep_min_tokens
        tree = self._trees.get(scope)
        path, known = tree.walk(tokens) if tree is not None else ([], 0)
        there = _unbroken(path, memory_only=True)
        start = min(known, there[-1].stop) if there else 0
        if length - start >= least:
            return start
        if not (snapshot and self._needs_snapshots):
            return None
        return start if length - self._last_snapshot(there, length, memory_only=True) >= least else None

    def kept(self, scope: str, tokens: bytes) -> list[PrefixNode]:
        """The nodes along a sequence, as far as they are whole and in memory without a gap."""
        tree = self._trees.get(scope)
        path, known = tree.walk(tokens) if tree is not None else ([], 0)
        return [node for node in _unbroken(path, memory_only=True) if node.stop <= known]

    def keep(
        self,
        scope: str,
        tokens: bytes,
        *,
        start: int,
        segment: Segment | None,
        snapshot: Snapshot | None,
        conversation: str | None = None,
    ) -> list[PrefixNode]:
        """Keep the segment of the tokens from ``start`` to the end, and the snapshot behind the last one.

        Returns:
            The nodes along the whole sequence; none if its conversation is to be forgotten.
        """
        if conversation is not None and (scope, conversation) in self._forgotten:
            return []
        tree = self._trees.setdefault(scope, PrefixTree())
        if start:
            tree.reach(tokens[: start * TOKEN_BYTES])
        path = tree.reach(tokens)
        for node in path:
            if segment is not None and node.start >= start and node.segment is None:
                self._put(node, segment.part(node.start - start, node.stop - start), node.snapshot)
        if path[-1].snapshot is None:
            self._put(path[-1], path[-1].segment, snapshot)
        self.use(path, conversation)
        return path

    def restored(self, piece: StoredPiece, segment: Segment, snapshot: Snapshot | None) -> None:
        """Take in what was read from a file, wherever it is missing in memory. It is over its bound until ``use``."""
        for node in self._nodes():
            if node.segment_file is piece and node.segment is None:
                self._put(node, segment.part(node.start - piece.start, node.stop - piece.start), node.snapshot)
            if node.snapshot_file is piece and node.snapshot is None and snapshot is not None:
                self._put(node, node.segment, snapshot)

    def attach(self, scope: str, tokens: bytes, piece: StoredPiece) -> None:
        """A file holds a part of this sequence: known from now on, and read when it is needed."""
        tree = self._trees.setdefault(scope, PrefixTree())
        if piece.start:
            tree.reach(tokens[: piece.start * TOKEN_BYTES])
        path = tree.reach(tokens[: piece.stop * TOKEN_BYTES])
        for node in path:
            if node.start >= piece.start:
                node.segment_file = node.segment_file or piece
                if piece.conversation is not None:
                    node.conversations.add(piece.conversation)
        if piece.has_snapshot:
            path[-1].snapshot_file = path[-1].snapshot_file or piece

    def lost(self, names: Iterable[str]) -> None:
        """These files are gone, or of no use."""
        gone = set(names)
        for node in list(self._nodes()) if gone else ():
            self._lose(node, gone)

    def forget(self, scope: str, conversation: str | None) -> set[str]:
        """Drop what belongs to one conversation and to no other, or with None the whole scope.

        A conversation that is still being generated is not kept again. A request without a conversation has no say.

        Returns:
            The files that hold any of it; whatever else they hold is lost with them.
        """
        if conversation is not None:
            self._forgotten[scope, conversation] = None
            if len(self._forgotten) > _FORGOTTEN_MAX:
                self._forgotten.popitem(last=False)
        tree = self._trees.get(scope, PrefixTree())
        files: set[str] = set()
        for node in reversed(list(tree)):
            if conversation is not None and conversation not in node.conversations:
                continue
            node.conversations.discard(conversation or "")
            if conversation is None or not node.conversations:
                files |= {piece.name for piece in (node.segment_file, node.snapshot_file) if piece is not None}
                self._put(node, None, None)
                node.segment_file = node.snapshot_file = None
                if not node.children:
                    node.detach()
        self.lost(files)
        return files

    def _nodes(self) -> Iterator[PrefixNode]:
        for tree in self._trees.values():
            yield from tree

    def _put(self, node: PrefixNode, segment: Segment | None, snapshot: Snapshot | None) -> None:
        """Give a node what it keeps in memory, and count it."""
        self.nbytes -= node.nbytes
        node.segment, node.snapshot = segment, snapshot
        self.nbytes += node.nbytes

    def _lose(self, node: PrefixNode, names: set[str]) -> None:
        """A node's files are gone; if nothing else is left of it, that it was there is known for a while."""
        before = (node.segment_file, node.snapshot_file)
        node.segment_file, node.snapshot_file = (
            None if piece is None or piece.name in names else piece for piece in before
        )
        if (node.segment_file, node.snapshot_file) != before:
            self._note_if_gone(node)

    def _note_if_gone(self, node: PrefixNode) -> None:
        if not node.known_only:
            return
        self._gone.append(node)
        if len(self._gone) > _GONE_KNOWN_MAX and (oldest := self._gone.popleft()).known_only and not oldest.children:
            oldest.detach()

    def _shrink(self) -> None:
        """Give up the least worthy until the bounds are kept; see ``prefix_value``."""
        while self.nbytes > self._limits.memory_bytes:
            for victim in victims(self._nodes(), needs_snapshots=self._needs_snapshots):
                self._base = max(self._base, victim.worth)
                self._put(victim.node, victim.node.segment if victim.snapshot_only else None, None)
                self.evictions += 1
                self._note_if_gone(victim.node)
                if self.nbytes <= self._limits.memory_bytes:
                    break

    def _last_snapshot(self, there: list[PrefixNode], reach: int, *, memory_only: bool) -> int:
        """The last place up to ``reach`` behind which there is a snapshot."""
        stops = [
            node.stop
            for node in there
            if node.stop <= reach
            and (node.snapshot is not None or (node.snapshot_file is not None and not memory_only))
        ]
        return max(stops, default=0)

    def _why_no_more(
        self, path: list[PrefixNode], usable: int, *, reach: int, known: int, most: int
    ) -> CacheMiss | None:
        if reach < min(known, most):
            return CacheMiss.EVICTED
        if usable < reach:
            return CacheMiss.NOT_TRIMMABLE
        if known <= most and (path[-1].stop > known or path[-1].children):
            return CacheMiss.DIVERGED
        return None

    def _files(self, nodes: tuple[PrefixNode, ...]) -> tuple[StoredPiece, ...]:
        wanted = [node.segment_file for node in nodes if node.segment is None]
        if self._needs_snapshots and nodes and nodes[-1].snapshot is None:
            wanted.append(nodes[-1].snapshot_file)
        return tuple(dict.fromkeys(piece for piece in wanted if piece is not None))


def _unbroken(path: list[PrefixNode], *, memory_only: bool) -> list[PrefixNode]:
    """The nodes up to the first one whose segment is not there."""
    return list(
        takewhile(
            lambda node: node.segment is not None or (node.segment_file is not None and not memory_only),
            path,
        )
    )
