"""What is kept of a vision tower's work: never another image's, never another tenant's, never more than the bound."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest

from manent.adapters.inference.vision_features import CachedTower

GRID = mx.array([[1, 2, 2], [1, 2, 4]])
PIXELS = mx.arange(12 * 3, dtype=mx.float32).reshape(12, 3)


class Tower:
    """Adds one; counts its calls."""

    name = "a tower"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: Any, *_others: Any, **_options: Any) -> Any:
        """What a tower makes of pixels."""
        self.calls += 1
        first = pixels[0] if isinstance(pixels, list) else pixels
        return first + 1, [first * 2]


def made(cached: CachedTower, pixels: Any, *others: Any, images: int = 1, tenant: str | None = "t", **more: Any) -> Any:
    """One call for a prompt, and how many images were reused."""
    cached.begin(tenant, images)
    features, (deep,) = cached(pixels, *others, **more)
    return features.tolist(), deep.tolist(), cached.reused


def test_each_image_is_kept_on_its_own_where_a_grid_tells_them_apart() -> None:
    """Two images, then the second one beside a new one: one call each, and what comes out is what the tower makes."""
    tower = Tower()
    cached = CachedTower(tower)
    whole = (PIXELS + 1).tolist(), (PIXELS * 2).tolist()
    assert made(cached, PIXELS, GRID, images=2) == (*whole, 0)
    assert (made(cached, PIXELS, GRID, images=2), tower.calls) == ((*whole, 2), 2)
    other = mx.concatenate([PIXELS[4:], PIXELS[:4] + 100])
    assert made(cached, other, mx.array([[1, 2, 4], [1, 2, 2]]), images=2)[2] == 1
    assert (tower.calls, cached.name) == (3, "a tower")


def test_rows_are_images_where_nothing_else_tells() -> None:
    """A tower that is given a row for each image, and nothing beside them, is asked for each image by itself."""
    tower = Tower()
    cached = CachedTower(tower)
    rows = mx.arange(24, dtype=mx.float32).reshape(2, 3, 4)
    assert made(cached, rows, images=2, deep=True) == ((rows + 1).tolist(), (rows * 2).tolist(), 0)
    assert made(cached, rows[::-1], images=2, deep=True)[2] == 2
    assert tower.calls == 2
    tiles = mx.arange(48, dtype=mx.float32).reshape(4, 3, 4)
    assert made(cached, tiles, images=2)[2] == 0
    assert made(cached, tiles, images=2) == ((tiles + 1).tolist(), (tiles * 2).tolist(), 2)


def test_what_cannot_be_joined_is_made_of_all_images_together() -> None:
    """A tower that makes more than arrays of an image is asked once for all, as without a cache."""

    def makes_numbers(pixels: mx.array) -> Any:
        return pixels + pixels.shape[0], [7]

    cached = CachedTower(makes_numbers)
    for reused in (0, 2):
        cached.begin("t", 2)
        features, deep = cached(mx.zeros((2, 3)))
        assert (features.tolist(), deep, cached.reused) == ([[2.0] * 3] * 2, [7], reused)


@pytest.mark.parametrize(
    ("pixels", "others", "options"),
    [
        (PIXELS.at[11, 2].add(1), (), {}),
        (PIXELS.astype(mx.bfloat16), (), {}),
        (PIXELS.reshape(3, 12), (), {}),
        (PIXELS, (mx.array([1]),), {}),
        (PIXELS, (), {"output_hidden_states": True}),
        (PIXELS, (), {"mask": mx.array([1])}),
        ([PIXELS.at[6, 0].add(1)], (), {}),
    ],
)
def test_whatever_differs_is_computed(pixels: Any, others: tuple[Any, ...], options: dict[str, Any]) -> None:
    """One pixel in the middle, the type, the shape, another argument: nothing is taken for something else."""
    cached = CachedTower(Tower())
    for known in (PIXELS, [PIXELS]):
        made(cached, known)
    assert made(cached, pixels, *others, **options)[2] == 0
    assert made(cached, pixels, *others, **options)[2] == 1


def test_what_cannot_be_told_apart_is_not_kept() -> None:
    """An argument of an unknown kind might be anything."""
    cached = CachedTower(Tower())
    for _ in range(2):
        assert made(cached, PIXELS, object())[2] == 0
    assert cached.nbytes == 0


def test_tenants_are_apart_and_nobodys_is_not_kept() -> None:
    """The same image of two tenants is computed twice; one's can be forgotten without the other's."""
    cached = CachedTower(Tower())
    assert [made(cached, PIXELS, tenant=tenant)[2] for tenant in ("a", "b", None, None, "a", "b")] == [0, 0, 0, 0, 1, 1]
    cached.forget("a")
    assert [made(cached, PIXELS, tenant=tenant)[2] for tenant in ("b", "a")] == [1, 0]


def test_bytes_are_bounded() -> None:
    """The least recently used goes first, and what is too large alone is not kept."""
    size = 2 * PIXELS.nbytes
    cached = CachedTower(Tower(), bytes_max=2 * size)
    assert [made(cached, PIXELS + n)[2] for n in (0, 1, 0, 2, 0, 1)] == [0, 0, 1, 0, 1, 0]
    assert cached.nbytes == 2 * size
    tight = CachedTower(Tower(), bytes_max=size - 1)
    assert [made(tight, PIXELS)[2] for _ in range(2)] == [0, 0]
    assert tight.nbytes == 0
