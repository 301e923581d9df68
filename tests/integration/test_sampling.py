"""Sampling with MLX: keyed by seed and position, faithful to the distribution, greedy at zero."""

from __future__ import annotations

import mlx.core as mx
import pytest

from manent.adapters.inference.sampling import Sampler, keep_top_p, make_sampler
from tests.support.engines import parameters

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def draw(sampler: Sampler) -> int:
    """The next token."""
    token = sampler(LOGPROBS).item()
    assert isinstance(token, int)
    return token


def sample(count: int, *, temperature: float = 1.0, top_p: float = 1.0, seed: int = 7) -> list[int]:
    """The tokens of the first positions of one generation."""
    sampler = make_sampler(parameters(temperature=temperature, top_p=top_p, seed=seed))
    return [draw(sampler) for _ in range(count)]


def test_a_seed_repeats_and_seeds_differ() -> None:
    """The same seed gives the same tokens, another one others; global random state plays no part."""
    mx.random.seed(1)
    first = sample(40)
    mx.random.seed(2)
    assert sample(40) == first
    assert sample(40, seed=8) != first


def test_samplers_do_not_disturb_each_other() -> None:
    """Two generations that are sampled in turns get what each gets alone."""
    one, other = (make_sampler(parameters(temperature=1.0, seed=seed)) for seed in (1, 2))
    mixed = [(draw(one), draw(other)) for _ in range(20)]
    assert [pair[0] for pair in mixed] == sample(20, seed=1)
    assert [pair[1] for pair in mixed] == sample(20, seed=2)


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [0.5, 0.3, 0.15, 0.05]), (0.5, [0.6849, 0.2466, 0.0616, 0.0068])]
)
def test_frequencies_are_probabilities(temperature: float, expected: list[float]) -> None:
    """Over many positions each token comes as often as it should (p ** (1 / temperature), normalized)."""
    tokens = sample(4000, temperature=temperature)
    frequencies = [tokens.count(token) / len(tokens) for token in range(4)]
    assert frequencies == pytest.approx(expected, abs=0.025)


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 1e-4])
def test_at_zero_and_near_it_the_most_probable_token_is_taken(temperature: float) -> None:
    """Also where dividing by the temperature would overflow."""
    assert sample(20, temperature=temperature) == [0] * 20


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {0}), (0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.96, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, kept: set[int]) -> None:
    """The most probable tokens up to the one that reaches top_p, at least one."""
    masked = keep_top_p(LOGPROBS, top_p)
    assert {token for token in range(4) if masked[0, token].item() != -float("inf")} == kept
    assert set(sample(300, top_p=top_p)) <= kept
