"""Sampling with MLX: keyed by seed and position, faithful to the distribution, in the documented order."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest

from manent.adapters.inference.penalties import Penalties
from manent.adapters.inference.sampling import Choice, TokenChooser, keep_min_p, keep_top_k, keep_top_p
from manent.domain.generation import SamplingParameters
from tests.support.sampling import parameters

PROBABILITIES = [0.5, 0.3, 0.15, 0.05]
LOGPROBS = mx.log(mx.array([PROBABILITIES]))


def draw(chooser: TokenChooser, logprobs: mx.array = LOGPROBS) -> Choice:
    """The next token."""
    chooser(logprobs)
    return chooser.take()


def sample(count: int, *, index: int = 0, **effective: Any) -> list[int]:
    """The tokens of the first positions of one generation."""
    chooser = TokenChooser(parameters(**{"temperature": 1.0, "seed": 7, **effective}), index=index)
    return [draw(chooser).token_id for _ in range(count)]


def test_a_seed_repeats_and_seeds_differ() -> None:
    """The same seed gives the same tokens, another one others; global random state plays no part."""
    mx.random.seed(1)
    first = sample(40)
    mx.random.seed(2)
    assert sample(40) == first
    assert sample(40, seed=8) != first


def test_the_choices_of_one_request_differ_and_the_first_is_that_of_a_single_one() -> None:
    """n = 3 with a seed: three answers, the first of them the one that n = 1 gets."""
    choices = [sample(40, index=index) for index in range(3)]
    assert len(set(map(tuple, choices))) == 3
    assert choices[0] == sample(40)


def test_samplers_do_not_disturb_each_other() -> None:
    """Two generations that are sampled in turns get what each gets alone."""
    one, other = (TokenChooser(parameters(temperature=1.0, seed=seed)) for seed in (1, 2))
    mixed = [(draw(one).token_id, draw(other).token_id) for _ in range(20)]
    assert [pair[0] for pair in mixed] == sample(20, seed=1)
    assert [pair[1] for pair in mixed] == sample(20, seed=2)


def test_who_goes_on_behind_given_tokens_says_what_was_to_come() -> None:
    """After a failed evaluation a choice is begun again behind what was handed out: same noise, same penalties."""
    effective = parameters(temperature=1.0, seed=7, frequency_penalty=0.5)
    whole = TokenChooser(effective)
    tokens = [draw(whole).token_id for _ in range(20)]
    rest = TokenChooser(effective, output=tokens[:8])
    assert [draw(rest).token_id for _ in range(12)] == tokens[8:]


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


def kept(masked: mx.array) -> set[int]:
    """The tokens that a filter left."""
    return {token for token in range(4) if masked[0, token].item() != -float("inf")}


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.01, {0}), (0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.96, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, expected: set[int]) -> None:
    """The most probable tokens up to the one that reaches top_p, at least one."""
    assert kept(keep_top_p(LOGPROBS, top_p)) == expected
    assert set(sample(300, top_p=top_p)) <= expected


@pytest.mark.parametrize(("top_k", "expected"), [(1, {0}), (2, {0, 1}), (4, {0, 1, 2, 3}), (100, {0, 1, 2, 3})])
def test_top_k_keeps_so_many_tokens(top_k: int, expected: set[int]) -> None:
    """The most probable ones; more than there are is all."""
    assert kept(keep_top_k(LOGPROBS, top_k)) == expected
    assert set(sample(300, top_k=top_k)) <= expected


@pytest.mark.parametrize(("min_p", "expected"), [(0.05, {0, 1, 2, 3}), (0.2, {0, 1, 2}), (0.5, {0, 1}), (1.0, {0})])
def test_min_p_is_a_share_of_the_most_probable_token(min_p: float, expected: set[int]) -> None:
    """Tokens less probable than min_p times the most probable one are out."""
    assert kept(keep_min_p(LOGPROBS, min_p)) == expected
    assert set(sample(300, min_p=min_p)) <= expected


def penalized(
    logits: list[float], *, prompt: tuple[int, ...] = (), said: tuple[int, ...] = (), **effective: Any
) -> Any:
    """Scores after the penalties of a request that said some tokens."""
    penalties = Penalties.of(parameters(**effective), prompt=prompt, output=said)
    assert penalties is not None
    (row,) = penalties.apply(mx.array([logits])).tolist()  # type: ignore[misc]  # a matrix
    return row


def test_frequency_and_presence_penalties_look_at_the_output() -> None:
    """OpenAI's formula: score - count * frequency - (count > 0) * presence; the prompt does not count."""
    found = penalized([1.0, 1.0, 1.0], prompt=(2, 2), said=(0, 0, 1), frequency_penalty=0.5, presence_penalty=0.25)
    assert found == [1 - 2 * 0.5 - 0.25, 1 - 0.5 - 0.25, 1.0]


def test_a_repetition_penalty_looks_at_prompt_and_output() -> None:
    """A positive logit is divided, a negative one multiplied: both become less probable."""
    assert penalized([2.0, -2.0, 2.0, -2.0], prompt=(0,), said=(1,), repetition_penalty=2.0) == [1.0, -4.0, 2.0, -2.0]


def test_a_bias_is_added_before_penalties() -> None:
    """As vLLM orders them; a token that nobody named is left alone."""
    found = penalized([1.0, 1.0, 1.0], said=(0,), logit_bias={0: 3.0, 2: -100.0}, repetition_penalty=2.0)
    assert found == [2.0, 1.0, -99.0]


@pytest.mark.parametrize(
    ("effective", "expected"),
    [
        ({"logit_bias": {3: 100.0}}, [3, 3, 3, 3]),
        ({"logit_bias": {0: -100.0, 1: -100.0}}, [2, 2, 2, 2]),
        ({"frequency_penalty": 0.4}, [0, 0, 1, 0]),
        ({"presence_penalty": 2.0}, [0, 1, 2, 0]),
        ({"repetition_penalty": 2.0}, [0, 1, 0, 0]),
    ],
)
def test_greedy_goes_by_what_biases_and_penalties_left(effective: dict[str, Any], expected: list[int]) -> None:
    """Each token is counted as soon as it is chosen, though nobody has read it yet."""
    chooser = TokenChooser(parameters(**effective))
    for _ in expected:
        chooser.see_logits(LOGPROBS, LOGPROBS)
        chooser(LOGPROBS)
    assert [chooser.take().token_id for _ in expected] == expected


def test_log_probabilities_are_the_models_own() -> None:
    """Biases, penalties and temperature change what is chosen, and not what is told of it; the best come first."""
    effective = parameters(
        logprobs=True, top_logprobs=3, logit_bias={3: 100.0}, temperature=0.1, top_k=1, presence_penalty=1.0
    )
    chooser = TokenChooser(effective)
    assert chooser.needs_logits
    chooser.see_logits(LOGPROBS, LOGPROBS + 7)
    choice = draw(chooser)
    assert choice.token_id == 3
    assert choice.logprob_value == pytest.approx(math.log(0.05), abs=1e-5)
    assert [token for token, _ in choice.top()] == [0, 1, 2]
    assert [logprob for _, logprob in choice.top()] == pytest.approx([math.log(p) for p in PROBABILITIES[:3]], abs=1e-5)


def test_half_precision_is_told_from_the_logits() -> None:
    """bfloat16 has three digits: the log probabilities are made of float32, where the logits were seen."""
    chooser = TokenChooser(parameters(logprobs=True))
    logits = LOGPROBS.astype(mx.bfloat16)
    chooser.see_logits(logits, logits)
    exact = logits.astype(mx.float32)
    told = draw(chooser, logits).logprob_value
    assert told == pytest.approx((exact - mx.logsumexp(exact))[0, 0].item(), abs=1e-6)


def test_a_chooser_that_fails_does_not_raise_until_it_is_asked() -> None:
    """In a batch the call must not raise; whoever takes the token hears of it."""
    chooser = TokenChooser(SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=1, seed=1, top_logprobs=99))
    assert chooser(LOGPROBS).tolist() == [0]
    with pytest.raises(ValueError, match="kth"):
        chooser.take()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_noticed(bad: float) -> None:
    """One NaN or infinity spoils all log probabilities of its row, whatever token stands for them."""
    logits = mx.array([[1.0, bad, 2.0]])
    chooser = TokenChooser(parameters(temperature=1.0, top_p=0.5))
    chooser(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    with pytest.raises(ArithmeticError, match="not numbers"):
        chooser.take()
