"""From the parameters that a client gave to those that the engine uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from manent.domain.errors import ContextLengthExceeded, InvalidValue
from manent.domain.generation import ModelCard, RequestedParameters, SamplingParameters

OUTPUT_SHARE = 4
_Number = TypeVar("_Number", int, float)


def output_reserve_tokens(card: ModelCard, asked: RequestedParameters, *, shrinking: bool = False) -> int:
    """How much of the window truncation leaves for the answer: what was asked for, else a fourth at most."""
    share = max(1, card.context_length // OUTPUT_SHARE)
    if shrinking:
        return min(asked.max_tokens or share, share)
    return asked.max_tokens or min(card.default_max_tokens or share, share)


def effective_parameters(
    card: ModelCard,
    asked: RequestedParameters,
    *,
    prompt_tokens: int,
    new_seed: Callable[[], int],
    shrinking: bool = False,
) -> SamplingParameters:
    """Fill in the model's defaults, a seed, and as many output tokens as the context window has room for.

    ``shrinking`` takes ``max_tokens`` for an upper bound, which the room may lower, and not for a wish.

    Raises:
        ContextLengthExceeded: the prompt, with the output that was asked for, does not fit the window.
    """
    room = card.context_length - prompt_tokens
    wanted = 1 if asked.max_tokens is None or shrinking else asked.max_tokens
    if wanted > room:
        raise ContextLengthExceeded(
            f"this model's maximum context length is {card.context_length} tokens, but {prompt_tokens + wanted} were "
            f"requested ({prompt_tokens} in the messages, {wanted} in the completion); shorten the messages or "
            "max_tokens, or send truncation 'auto' to leave the oldest messages out"
        )
    max_tokens = asked.max_tokens or min(card.default_max_tokens or room, room)
    if shrinking:
        max_tokens = min(max_tokens, room)
    return SamplingParameters(
        temperature=_given(asked.temperature, card.default_temperature),
        top_p=_given(asked.top_p, card.default_top_p),
        top_k=max(0, asked.top_k or 0),
        min_p=asked.min_p or 0.0,
        max_tokens=max_tokens,
        seed=new_seed() if asked.seed is None else asked.seed,
        stop=asked.stop,
        stop_token_ids=asked.stop_token_ids,
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        repetition_penalty=_given(asked.repetition_penalty, 1.0),
        logit_bias=asked.logit_bias,
        n=asked.n,
        logprobs=asked.logprobs,
        top_logprobs=asked.top_logprobs if asked.logprobs else 0,
        deterministic=asked.deterministic,
        shape=asked.shape,
    )


def check_token_ids(asked: RequestedParameters, *, vocabulary_size: int) -> None:
    """Raise InvalidValue where a parameter names a token that the model does not have."""
    named = {"logit_bias": asked.logit_bias, "stop_token_ids": asked.stop_token_ids}
    for param, token_ids in named.items():
        for token_id in token_ids:
            if not 0 <= token_id < vocabulary_size:
                raise InvalidValue(
                    f"{param} names token {token_id}; this model's token ids are 0 to {vocabulary_size - 1}",
                    param=param,
                )


def _given(asked: _Number | None, default: _Number) -> _Number:
    return default if asked is None else asked
