"""How near the model's two best tokens lay where a rerun parted from the record: one more look at that place."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

from manent.domain.generation import GenerationRequest, TextDelta, TokenLogprobs
from manent.domain.output import PartialOutput
from manent.domain.ports import InferenceEngine
from manent.domain.verification import Divergence


async def explained(engine: InferenceEngine, request: GenerationRequest, divergence: Divergence) -> Divergence:
    """``divergence`` with what the model thought there; ``request`` asks for log probabilities up to that token."""
    output = PartialOutput(request.parameters.n)
    async with aclosing(engine.generate(request)) as outputs:
        async for told in outputs:
            if isinstance(told, TextDelta):
                output.add(told)
    choice = output.choices[divergence.choice]
    place = divergence.position
    # A token that ends a text is told without its log probabilities, and this look may part from the first one.
    if place >= len(choice.logprobs) or choice.token_ids[place] != divergence.rerun_token:
        return divergence
    there = choice.logprobs[place]
    gap = there.top[0].logprob - there.top[1].logprob if len(there.top) > 1 else None
    return replace(
        divergence,
        logit_gap=None if gap is None else round(gap, 6),
        recorded_text=_text(there, divergence.recorded_token),
        rerun_text=_text(there, divergence.rerun_token),
    )


def _text(there: TokenLogprobs, token: int | None) -> str | None:
    for candidate in (there.chosen, *there.top):
        if candidate.token_id == token:
            return candidate.token_bytes.decode("utf-8", "replace")
    return None
