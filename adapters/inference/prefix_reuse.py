"""The prefix cache as a model's batch uses it: what a prompt begins with is looked for, read, and put together.

What was evaluated is kept by ``prefix_keeping``. Everything here belongs to MLX's thread.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from manent.adapters.inference.prefix_cache import Found, PrefixCache, PrefixLimits
from manent.adapters.inference.prefix_disk import DiskCounts, PrefixDisk
from manent.adapters.inference.prefix_keeping import PrefixKeeper
from manent.adapters.inference.prefix_layers import PrefixLayers
from manent.adapters.inference.prefix_stats import PrefixStats
from manent.adapters.inference.prefix_tensors import RawPiece, piece_of, raw_piece
from manent.adapters.inference.prefix_tree import StoredPiece, packed
from manent.adapters.inference.protocol import Generate
from manent.adapters.inference.runner_log import say
from manent.domain.caching import CacheMiss, CacheUse

_READ_TIMEOUT_S = 10.0
"""A disk that takes longer is not waited for: the prompt is evaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """How a sequence is handed to mlx-lm.

    ``caches`` hold the first ``tokens`` tokens, None if nothing can be reused; ``segments`` are the others, cut where a
    snapshot is wanted.
    """

    segments: list[list[int]]
    tokens: int = 0
    caches: list[Any] | None = None
    use: CacheUse = field(default_factory=CacheUse)


@dataclass(frozen=True, slots=True)
class _Reading:
    pieces: tuple[StoredPiece, ...]
    content: Future[dict[str, object]]
    until_s: float


class PrefixReuse:
    """The prefix cache of one model, as its batch uses it. A limit of 0 bytes turns it off."""

    def __init__(
        self, new_caches: Callable[[], list[Any]], *, limits: PrefixLimits, disk: PrefixDisk | None = None
    ) -> None:
        self._layers = PrefixLayers(new_caches)
        self._cache = PrefixCache(limits, needs_snapshots=self._layers.needs_snapshots)
        self._limits = limits
        self._serves = limits.memory_bytes > 0 and self._layers.supported
        self._disk: PrefixDisk | None = None
        self._reading: dict[int, _Reading] = {}
        self._read: set[int] = set()
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._failures = 0
        self.keeper = PrefixKeeper(self._layers, self._cache, keeps=self._serves)
        if disk is not None:
            self.open_disk(disk)

    def open_disk(self, disk: PrefixDisk) -> None:
        """Take in what earlier runners left on disk, and write what is kept from now on."""
        if self._serves:
            self._disk = self.keeper.disk = disk
            for known in disk.scan():
                self._cache.attach(known.scope, known.tokens, known.piece)

    def must_read(self, request: Generate) -> bool:
        """Whether what serves a prompt is on disk: it is read from now on, and the request shows in ``arrived``."""
        scope = request.prefix
        if self._disk is None or scope is None:
            return False
        self._cache.lost(self._disk.take_gone())
        tokens = packed(request.token_ids)
        found = self._cache.find(scope.tenant, tokens)
        if not found.files or sum(piece.size_bytes for piece in found.files) > self._limits.memory_bytes:
            return False
        if found.tokens <= self._cache.find(scope.tenant, tokens, memory_only=True).tokens:
            return False
        content = self._disk.read(found.files, raw_piece)
        self._reading[request.id] = _Reading(found.files, content, time.monotonic() + _READ_TIMEOUT_S)
        return True

    @property
    def reading(self) -> int:
        """How many requests wait for the disk."""
        return len(self._reading)

    def arrived(self, *, wait_s: float) -> list[int]:
        """The requests whose reading ended, well or not; waits for one for at most ``wait_s``."""
        if not self._reading:
            return []
        wait([reading.content for reading in self._reading.values()], timeout=wait_s, return_when="FIRST_COMPLETED")
        now_s = time.monotonic()
        over = {
            request_id: reading
            for request_id, reading in self._reading.items()
            if reading.content.done() or now_s > reading.until_s
        }
        for request_id, reading in over.items():
            del self._reading[request_id]
            if reading.content.done():
                self._restore(reading)
                self._read.add(request_id)
        return list(over)

    def find(self, request: Generate, tokens: Sequence[int]) -> Warm:
        """What can be reused for a sequence of tokens, of which one at least is left to evaluate."""
        scope = request.prefix
        if scope is None or not self._serves:
            miss = CacheMiss.DISABLED if self._layers.supported else CacheMiss.UNSUPPORTED
            return Warm(use=CacheUse(miss=miss), segments=[list(tokens)])
        found = self._cache.find(scope.tenant, packed(tokens), memory_only=True)
        caches = None
        if found.tokens:
            segments: Any = [node.segment for node in found.nodes]
            snapshot: Any = found.nodes[-1].snapshot
            caches = self._layers.assemble(segments, snapshot, found.tokens)
            self._cache.use(found.nodes, scope.conversation)
        source = ("disk" if request.id in self._read else "memory") if found.tokens else None
        return Warm(
            use=CacheUse(source=source, miss=found.miss, known_tokens=found.known_tokens),
            segments=self._cut(tokens, found, request.history_tokens),
            tokens=found.tokens,
            caches=caches,
        )

    def count(self, request: Generate, warm: Warm) -> None:
        """A request began with this."""
        self._read.discard(request.id)
        self._hits[warm.use.source or ""] += 1
        self._misses[warm.use.miss or ""] += 1
        self._tokens.update(reused=warm.tokens, prompt=len(request.token_ids))

    def forget(self, tenant: str, conversation: str | None) -> None:
        """Drop what is kept of a conversation, or of a tenant, in memory and on disk."""
        files = self._cache.forget(tenant, conversation)
        if self._disk is not None:
            self._disk.delete(files)

    def flush(self) -> None:
        """Wait until everything that is to be written is."""
        if self._disk is not None:
            self._disk.flush()

    def stats(self) -> PrefixStats:
        """What is kept, and what happened since the start."""
        disk = self._disk.counts if self._disk is not None else DiskCounts()
        return PrefixStats(
            memory_bytes=self._cache.nbytes,
            pieces=self._cache.pieces,
            hits=self._hits["memory"] + self._hits["disk"],
            hits_from_disk=self._hits["disk"],
            misses={reason: count for reason, count in self._misses.items() if reason},
            prompt_tokens=self._tokens["prompt"],
            reused_tokens=self._tokens["reused"],
            evictions=self._cache.evictions,
            failures=self._failures + self.keeper.failures,
            files_written=disk.written,
            files_skipped=disk.skipped,
            files_removed=disk.removed,
            files_damaged=disk.damaged,
        )

    def _restore(self, reading: _Reading) -> None:
        """Take in what was read; what could not be is lost."""
        try:
            content = reading.content.result()
            for piece in reading.pieces:
                raw = content.get(piece.name)
                if isinstance(raw, RawPiece):
                    self._cache.restored(piece, *piece_of(raw))
        except Exception as error:  # noqa: BLE001 (a file that makes no sense after all is evaluated anew)
            self._failures += 1
            say("a prefix was not restored", error=error)

    def _cut(self, tokens: Sequence[int], found: Found, history_tokens: int) -> list[list[int]]:
        """The tokens left to evaluate; a state that cannot be cut later is kept where other prompts may part from this.

        That is behind the history, and where this one parted from what is known: there it may part from others as well
        (the checkpoints of Marconi, "Prefix Caching for the Era of Hybrid LLMs", MLSys 2025).
        """
        marks = {history_tokens, found.known_tokens} if self._layers.needs_snapshots else set()
        first = found.tokens + self._limits.keep_min_tokens
        cuts = [found.tokens, *sorted(mark for mark in marks if first <= mark < len(tokens)), len(tokens)]
        return [list(tokens[begin:end]) for begin, end in pairwise(cuts)]
