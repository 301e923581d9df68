"""Counting the tokens of a prompt: rendered as for an answer, and nothing generated or recorded."""

from __future__ import annotations

from collections.abc import Sequence

from manent.domain.access import Principal
from manent.domain.embedding import CHAT_TYPES, check_type
from manent.domain.messages import Message
from manent.domain.model_access import models_to_try
from manent.domain.output_shape import OutputShape
from manent.domain.ports import InferenceEngine


async def count_prompt(
    engine: InferenceEngine,
    principal: Principal,
    model: str,
    messages: Sequence[Message],
    *,
    shape: OutputShape | None = None,
) -> int:
    """How many tokens ``model`` would be given.

    Raises:
        ModelNotFound, WrongModelType: it is none that ``principal`` can ask.
        InvalidValue: its template does not take these messages.
        EngineBusy, EngineUnavailable, ModelLoadError: it cannot be asked now.
    """
    model_id = models_to_try(principal, model, engine.resolve)[0]
    check_type(model, engine.resolve(model_id).type, *CHAT_TYPES)
    async with engine.place(model_id) as place:
        prompt = await engine.render(place.model_id, messages, shape=shape)
    return len(prompt.token_ids)
