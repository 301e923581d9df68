"""What a batch evaluates is kept for later prompts: behind the prompt, at the end, and wherever a sequence is given up.

Everything here belongs to MLX's thread. Whatever fails here costs a cache, and never a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from manent.adapters.inference.prefix_cache import PrefixCache
from manent.adapters.inference.prefix_disk import PrefixDisk
from manent.adapters.inference.prefix_layers import PrefixLayers
from manent.adapters.inference.prefix_tensors import tensors_of
from manent.adapters.inference.prefix_tree import TOKEN_BYTES, PrefixNode, packed
from manent.adapters.inference.protocol import Generate, PrefixScope
from manent.adapters.inference.runner_log import say

_STEP_TOKENS = 512
"""How much of a prompt is kept between two steps: copying more would be a gap in everybody's stream."""


@dataclass(slots=True)
class _Followed:
    """A sequence of the batch that is to be kept; ``due`` while its prompt is evaluated and not kept beyond a place."""

    scope: PrefixScope
    prompt_tokens: int
    due: bool = False
    kept_tokens: int = 0


class PrefixKeeper:
    """Takes caches out of mlx-lm's batches and puts them into the prefix cache and, where that is allowed, on disk."""

    def __init__(self, layers: PrefixLayers, cache: PrefixCache, *, keeps: bool) -> None:
        self._layers = layers
        self._cache = cache
        self.disk: PrefixDisk | None = None
        self._keeps = keeps
        self._generator: Any = None
        self._followed: dict[int, _Followed] = {}
        self.failures = 0

    def attach(self, generator: Any) -> None:
        """Follow a new generator of mlx-lm's: it has no sequences yet.

        When a sequence ends it takes the cache out whether anybody wants it or not, and fails on models with layers
        that never wrote any. What it calls for that is replaced: the moment is used to keep what is worth it.
        """
        self._generator = generator
        self._followed.clear()
        batch, _ = _batches(generator)
        batch.extract_cache = lambda row: self._keep_ended(batch, row)

    def follow(self, uid: int, request: Generate) -> None:
        """A sequence of this request was handed to mlx-lm: keep what is evaluated of it."""
        if request.prefix is not None and self._keeps:
            self._followed[uid] = _Followed(request.prefix, len(request.token_ids))

    def before_step(self) -> None:
        """Keep some more of the prompts that were evaluated; their first tokens are on their way meanwhile."""
        for uid, followed in list(self._followed.items()):
            if followed.due:
                followed.kept_tokens = min(followed.prompt_tokens, followed.kept_tokens + _STEP_TOKENS)
                followed.due = followed.kept_tokens < followed.prompt_tokens
                self._keep(uid, stop=followed.kept_tokens)

    def after_step(self, prompts: Iterable[Any]) -> None:
        """Take mlx-lm's report on prompts: a state that cannot be cut later is kept at once."""
        for prompt in prompts:
            followed = self._followed.get(prompt.uid)
            if followed is None:
                continue
            if prompt.end_of_prompt:
                followed.due = not self._layers.needs_snapshots
            elif prompt.end_of_segment and self._layers.needs_snapshots:
                self._keep(prompt.uid)

    def ended(self, uids: Iterable[int]) -> None:
        """These sequences are about to be taken out of the generator, at whatever point they are."""
        for uid in uids:
            self._keep(uid)
            self._followed.pop(uid, None)

    def _keep_ended(self, batch: Any, row: int) -> list[Any]:
        """In place of mlx-lm's ``extract_cache`` of a sequence that ends; nobody looks at what it returns."""
        if (followed := self._followed.pop(batch.uids[row], None)) is not None:
            self._keep_row(batch, row, followed, stop=None)
        return []

    def _keep(self, uid: int, *, stop: int | None = None) -> None:
        followed = self._followed.get(uid)
        for batch in _batches(self._generator):
            if followed is not None and uid in batch.uids:
                self._keep_row(batch, batch.uids.index(uid), followed, stop=stop)

    def _keep_row(self, batch: Any, row: int, followed: _Followed, *, stop: int | None) -> None:
        """Keep the first ``stop`` tokens of a sequence of the batch, with None all that were evaluated."""
        try:
            with mx.stream(self._generator.stream):
                self._keep_tokens(batch.prompt_cache, row, packed(batch.tokens[row][:stop]), followed.scope, stop)
        except Exception as error:  # noqa: BLE001 (an evaluation that failed shows itself in the next step; and no cache is worth a request)
            self.failures += 1
            say("a prefix was not kept", error=error)

    def _keep_tokens(
        self, caches: Sequence[Any], row: int, tokens: bytes, scope: PrefixScope, stop: int | None
    ) -> None:
        at_end = stop is None
        start = self._cache.missing_from(scope.tenant, tokens, snapshot=at_end)
        if start is None:
            nodes = self._cache.kept(scope.tenant, tokens)
        else:
            length = len(tokens) // TOKEN_BYTES
            nodes = self._cache.keep(
                scope.tenant,
                tokens,
                start=start,
                segment=self._layers.segment(caches, row, start, length) if length > start else None,
                snapshot=self._layers.snapshot(caches, row) if at_end else None,
                conversation=scope.conversation,
            )
        if self.disk is not None and scope.durable:
            self._write(self.disk, scope, tokens, nodes)

    def _write(self, disk: PrefixDisk, scope: PrefixScope, tokens: bytes, nodes: Sequence[PrefixNode]) -> None:
        """Have written what is not on disk yet; what was written before is noted as used."""
        self._cache.lost(disk.take_gone())
        disk.touch(piece for node in nodes for piece in (node.segment_file, node.snapshot_file) if piece is not None)
        for node in nodes:
            segment: Any = node.segment if node.segment_file is None else None
            snapshot: Any = node.snapshot if node.snapshot_file is None else None
            if segment is None and snapshot is None:
                continue
            tensors, state = tensors_of(segment, snapshot)
            upto = tokens[: node.stop * TOKEN_BYTES]
            piece = disk.write(
                scope.tenant,
                upto,
                tensors,
                start=node.start if segment is not None else node.stop,
                conversation=scope.conversation,
                has_snapshot=snapshot is not None,
                state=state,
            )
            if piece is not None:
                self._cache.attach(scope.tenant, upto, piece)


def discard_ended(generator: Any) -> None:
    """Have a generator of mlx-lm's take no caches out where sequences end; see ``PrefixKeeper.attach``."""
    batch, _ = _batches(generator)
    batch.extract_cache = lambda _row: []


def _batches(generator: Any) -> tuple[Any, Any]:
    """The sequences that mlx-lm is generating, and those whose prompt it evaluates; it has no public name for them."""
    return generator._generation_batch, generator._prompt_batch  # noqa: SLF001 (its version is pinned, and tests look)
