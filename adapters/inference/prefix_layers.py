"""A model's caches in pieces: cut out of a batch, and put together for a new sequence. All of it on MLX's own thread.

Arrays are immutable, so a kept piece is not copied to be used, and nothing that uses it can change it. What is cut out
of a batch is copied and evaluated at once: a slice that waits would keep the whole batch's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, RotatingKVCache

Pair = tuple[mx.array, mx.array] | None
"""Keys and values of one layer, of shape (1, heads, tokens, size); None of a layer that keeps nothing."""


@dataclass(frozen=True, slots=True)
class KVSegment:
    """The keys and values of some successive tokens, of every layer that keeps them for each token."""

    tokens: int
    layers: tuple[Pair, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays."""
        return sum(keys.nbytes + values.nbytes for keys, values in filter(None, self.layers))

    def part(self, start: int, stop: int) -> Self:
        """Tokens ``start`` to ``stop``, copied; all of them is the segment itself."""
        if (start, stop) == (0, self.tokens):
            return self
        part = type(self)(stop - start, tuple(_cut(pair, start, stop) for pair in self.layers))
        mx.eval([pair for pair in part.layers if pair is not None])
        return part


@dataclass(frozen=True, slots=True)
class LayerStates:
    """The whole state of every layer that cannot be cut, behind one token: mlx-lm's ``state``, its tree flattened."""

    states: tuple[tuple[tuple[str, Any], ...], ...]

    @property
    def nbytes(self) -> int:
        """The bytes of the arrays; numbers beside them do not count."""
        return sum(value.nbytes for state in self.states for _, value in state if isinstance(value, mx.array))


class PrefixLayers:
    """How the caches of one model are made of segments and snapshots."""

    def __init__(self, new_caches: Callable[[], list[Any]]) -> None:
        self._new_caches = new_caches
        kinds = [type(leaf) for leaf in _leaves(new_caches())]
        self._cuttable = [kind is KVCache for kind in kinds]
        self.supported = bool(kinds) and all(kind in {KVCache, RotatingKVCache, ArraysCache} for kind in kinds)
        self.needs_snapshots = not all(self._cuttable)

    def segment(self, batch_caches: Sequence[Any], row: int, start: int, stop: int) -> KVSegment:
        """Tokens ``start`` to ``stop`` of one sequence of a batch.

        Raises:
            Exception: whatever the evaluation under way raises.
        """
        layers = [leaf for leaf, cut in zip(_leaves(batch_caches), self._cuttable, strict=True) if cut]
        mx.eval([layer.left_padding for layer in layers])
        pairs = tuple(_cut_row(layer, row, start, stop) for layer in layers)
        mx.eval([pair for pair in pairs if pair is not None])
        return KVSegment(stop - start, pairs)

    def snapshot(self, batch_caches: Sequence[Any], row: int) -> LayerStates | None:
        """The state of one sequence of a batch, behind its latest token; None where the model has none."""
        if not self.needs_snapshots:
            return None
        layers = [leaf for leaf, cut in zip(_leaves(batch_caches), self._cuttable, strict=True) if not cut]
        states = tuple(tuple(_flat_state(_extract(layer, row))) for layer in layers)
        mx.eval([value for state in states for _, value in state if isinstance(value, mx.array)])
        return LayerStates(states)

    def assemble(self, segments: Iterable[KVSegment], snapshot: LayerStates | None, tokens: int) -> list[Any]:
        """Caches for a new sequence whose first ``tokens`` tokens the segments hold; nothing is evaluated yet."""
        caches = self._new_caches()
        pairs = zip(*(segment.layers for segment in segments), strict=True)
        states = iter(snapshot.states if snapshot is not None else ())
        for leaf, cut in zip(_leaves(caches), self._cuttable, strict=True):
            if not cut:
                leaf.state = _nested(next(states))
            elif (pair := _joined(next(pairs), tokens)) is not None:
                leaf.keys, leaf.values = pair
                leaf.offset = tokens
        return caches


def _leaves(caches: Iterable[Any]) -> list[Any]:
    """The caches, those inside of lists included, in their order."""
    return [leaf for cache in caches for leaf in (_leaves(cache.caches) if isinstance(cache, CacheList) else (cache,))]


def _cut(pair: Pair, start: int, stop: int) -> Pair:
    if pair is None:
        return None
    keys, values = pair
    return mx.contiguous(keys[:, :, start:stop]), mx.contiguous(values[:, :, start:stop])


def _cut_row(layer: Any, row: int, start: int, stop: int) -> Pair:
    if layer.keys is None:
        return None  # a layer without attention that the model counts all the same
    padding = layer.left_padding.tolist()[row]
    return _cut((layer.keys[row : row + 1], layer.values[row : row + 1]), padding + start, padding + stop)


def _joined(pairs: Sequence[Pair], tokens: int) -> Pair:
    written = [pair for pair in pairs if pair is not None]
    if not written:
        return None
    keys = mx.concatenate([keys for keys, _ in written], axis=2)
    values = mx.concatenate([values for _, values in written], axis=2)
    return keys[:, :, :tokens], values[:, :, :tokens]


def _extract(layer: Any, row: int) -> Any:
    """mlx-lm's own way, but for layers that were not written yet, on which it fails."""
    if isinstance(layer, ArraysCache):
        written: list[Any] = layer.cache
        alone: Any = ArraysCache(len(written))
        alone.cache = [None if array is None else mx.contiguous(array[row : row + 1]) for array in written]
        return alone
    if layer.empty():
        return RotatingKVCache(layer.max_size)  # type: ignore[no-untyped-call]  # mlx-lm has no types
    return layer.extract(row)


def _flat_state(cache: Any) -> list[tuple[str, Any]]:
    """The leaves of a state with their paths, in order; a state of nothing but None included."""
    flat: Any = tree_flatten(cache.state, is_leaf=lambda leaf: leaf is None)
    return list(flat)


def _nested(flat: Sequence[tuple[str, Any]]) -> Any:
    """The state again; new lists each time, since caches write into theirs."""
    return tree_unflatten(list(flat))
