"""What a vision tower made of images, kept for the next turn: within a byte budget, and for each tenant apart.

A tower is called with pixels, and what it makes of the same pixels is the same: so what is kept is named by the SHA-256
of all that it was called with. Where a call has several images and it is clear whose is what, each is kept on its own,
so that a new image in a conversation does not make the old ones new. Belongs to MLX's thread.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

FEATURES_BYTES_MAX = 512 * 2**20
TOWERS = ("vision_tower", "vision_model", "visual", "vision_encoder")
"""Under which names mlx-vlm's models have theirs."""

_TOLD_BY_REPR = (bool, int, float, str, mx.Dtype)
_GRID_SIZES = 3
"""A grid says for each image how many patches it has in time, height and width."""


class CachedTower:
    """Stands in for a model's vision tower."""

    def __init__(self, tower: Any, *, bytes_max: int = FEATURES_BYTES_MAX) -> None:
        self._tower = tower
        self._bytes_max = bytes_max
        self._kept: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
        self._tenant: str | None = None
        self._images = 0
        self.nbytes = 0
        self.reused = 0

    @classmethod
    def on(cls, model: Any) -> CachedTower | None:
        """Put one between a model and its tower; None where mlx-vlm calls its tower by an unknown name."""
        for name in TOWERS:
            if (tower := getattr(model, name, None)) is not None:
                cached = cls(tower)
                setattr(model, name, cached)
                return cached
        return None

    def begin(self, tenant: str | None, images: int) -> None:
        """What comes next is for a prompt of this tenant's with so many images; without a tenant nothing is kept."""
        self._tenant, self._images, self.reused = tenant, images, 0

    def forget(self, tenant: str) -> None:
        """Drop what is kept for a tenant."""
        for name in [name for name in self._kept if name[0] == tenant]:
            self.nbytes -= _nbytes(self._kept.pop(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tower, name)

    def __call__(self, pixels: Any, *others: Any, **options: Any) -> Any:
        """What the tower makes of pixels, or made of them before."""
        if self._tenant is None:
            return self._tower(pixels, *others, **options)
        if self._images > 1:
            parts = list(_by_grid(pixels, others)) or list(_by_row(pixels, others, options))
            if len(parts) == self._images:
                made = [self._one(self._tenant, 1, *part, options) for part in parts]
                if all(map(_is_of_arrays, made)):
                    return tree_map(lambda *arrays: mx.concatenate(list(arrays), axis=0), *made)
                self.reused = 0
        return self._one(self._tenant, self._images, pixels, others, options)

    def _one(self, tenant: str, images: int, pixels: Any, others: tuple[Any, ...], options: dict[str, Any]) -> Any:
        digest = _digest(pixels, others, options)
        if digest is None:
            return self._tower(pixels, *others, **options)
        name = tenant, digest
        if name in self._kept:
            self._kept.move_to_end(name)
            self.reused += images
            return self._kept[name]
        made = self._tower(pixels, *others, **options)
        mx.eval(made)
        self._kept[name] = made
        self.nbytes += _nbytes(made)
        while self.nbytes > self._bytes_max:
            self.nbytes -= _nbytes(self._kept.popitem(last=False)[1])
        return made


def _by_grid(pixels: Any, others: tuple[Any, ...]) -> Iterator[tuple[mx.array, tuple[Any, ...]]]:
    """The call as one for each image, where a grid beside the pixels says whose which rows are (Qwen's models)."""
    if not isinstance(pixels, mx.array) or len(others) != 1 or not isinstance(others[0], mx.array):
        return
    grid = others[0]
    if grid.ndim != 2 or grid.shape[1] != _GRID_SIZES:  # noqa: PLR2004 (a row for each image)
        return
    rows = [math.prod(sizes) for sizes in np.array(grid).tolist()]
    if sum(rows) != pixels.shape[0]:
        return
    start = 0
    for number, count in enumerate(rows):
        yield pixels[start : start + count], (grid[number : number + 1],)
        start += count


def _by_row(
    pixels: Any, others: tuple[Any, ...], options: dict[str, Any]
) -> Iterator[tuple[mx.array, tuple[Any, ...]]]:
    """The call as one for each row, where nothing beside the pixels could be about several images (CLIP, SigLIP)."""
    leaves: Any = tree_flatten([list(others), options])
    if isinstance(pixels, mx.array) and not any(isinstance(leaf, mx.array) for _, leaf in leaves):
        for row in range(pixels.shape[0]):
            yield pixels[row : row + 1], others


def _is_of_arrays(made: Any) -> bool:
    """Whether what was made of an image is arrays alone, which can be joined by their first axis."""
    leaves: Any = tree_flatten(made)
    return all(isinstance(leaf, mx.array) and leaf.ndim > 0 for _, leaf in leaves)


def _digest(pixels: Any, others: tuple[Any, ...], options: dict[str, Any]) -> bytes | None:
    """SHA-256 of all that a tower is called with; None where that holds something whose content cannot be told."""
    digest = hashlib.sha256()
    leaves: Any = tree_flatten([pixels, list(others), options])
    for place, leaf in leaves:
        if isinstance(leaf, mx.array):
            digest.update(f"{place} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(np.array(leaf.reshape(-1).view(mx.uint8))).data)
        elif leaf is None or isinstance(leaf, _TOLD_BY_REPR):
            digest.update(f"{place} {leaf!r}".encode())
        else:
            return None
    return digest.digest()


def _nbytes(made: Any) -> int:
    arrays: Any = tree_flatten(made)
    return sum(array.nbytes for _, array in arrays if isinstance(array, mx.array))
