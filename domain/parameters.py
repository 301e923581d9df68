"""From the parameters that a client gave to those that the engine uses."""

from __future__ import annotations

from collections.abc import Callable

from manent.domain.errors import ContextLengthExceeded
from manent.domain.generation import ModelCard, RequestedParameters, SamplingParameters

OUTPUT_SHARE = 4


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
        temperature=card.default_temperature if asked.temperature is None else asked.temperature,
        top_p=card.default_top_p if asked.top_p is None else asked.top_p,
        max_tokens=max_tokens,
        seed=new_seed() if asked.seed is None else asked.seed,
        stop=asked.stop,
    )
