"""What the model will see of a conversation: all of it or, where truncation is allowed, what fits its window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from manent.domain.completion_input import ContextUsed, DroppedMessages
from manent.domain.context import select_messages
from manent.domain.generation import ModelCard, RenderedPrompt, RequestedParameters, SamplingParameters, Truncation
from manent.domain.made_often import made_often
from manent.domain.messages import Message
from manent.domain.parameters import check_token_ids, effective_parameters, output_reserve_tokens
from manent.domain.ports import InferenceEngine
from manent.domain.prompts import TextPrompt
from manent.domain.usecases.token_counts import TokenCounts

TRUNCATION_ROUNDS_MAX = 4
SURELY_TOO_LONG = 1.25
"""How far beyond the window estimates must be for a conversation not even to be rendered as a whole."""


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the model will see, and with what parameters it is asked."""

    context: ContextUsed
    prompt: RenderedPrompt
    parameters: SamplingParameters


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request says about its view; ``tenant`` is None for messages without a session, whose ids are new."""

    tenant: str | None
    parameters: RequestedParameters
    truncation: Truncation
    max_tokens_shrinks: bool


class ModelView:
    """Renders prompts. A long conversation costs as much as what the model sees of it, however long it is."""

    def __init__(self, engine: InferenceEngine, *, new_seed: Callable[[], int]) -> None:
        self._engine = engine
        self._counts = TokenCounts(engine)
        self._new_seed = new_seed

    async def of(self, card: ModelCard, messages: Sequence[Message], asked: Asked) -> View:
        """Render everything or, where truncation is allowed, what fits.

        Raises:
            ContextLengthExceeded: it does not fit.
            InvalidValue: there are images that the model cannot be shown.
        """
        room = card.context_length - (1 if asked.max_tokens_shrinks else asked.parameters.max_tokens or 1)
        truncates = asked.truncation is Truncation.AUTO
        if truncates and await self._is_surely_longer(card, messages, asked.tenant, room):
            return await self._truncated(card, messages, asked)
        kept = tuple(messages)
        prompt = await self._engine.render(card.model_id, kept, shape=asked.parameters.shape)
        if truncates and len(prompt.token_ids) > room:
            return await self._truncated(card, messages, asked)
        return self._view(card, asked, kept, None, prompt)

    async def of_prompt(self, card: ModelCard, prompt: TextPrompt, asked: Asked) -> tuple[View, TextPrompt]:
        """Tokenize a prompt that is to be continued as it stands; the second is the same prompt, with its text.

        Raises:
            ContextLengthExceeded: it does not fit.
            InvalidValue: the model does not have one of the tokens.
        """
        explained = await self._engine.tokenize(card.model_id, prompt)
        said = TextPrompt(text=explained.text, token_ids=prompt.token_ids)
        return self._view(card, asked, (), None, explained.rendered), said

    async def _is_surely_longer(
        self, card: ModelCard, messages: Sequence[Message], tenant: str | None, room: int
    ) -> bool:
        """Whether the counts of the last messages, known from the turns before, are far beyond the window."""
        if tenant is None:
            return False
        far = int(room * SURELY_TOO_LONG)
        return sum(await self._counts.at_the_end(card.model_id, tenant, messages, budget_tokens=far)) > far

    async def _truncated(self, card: ModelCard, messages: Sequence[Message], asked: Asked) -> View:
        room = card.context_length - output_reserve_tokens(card, asked.parameters, shrinking=asked.max_tokens_shrinks)
        if asked.tenant is None:
            counts: Sequence[int] = await self._engine.count_tokens(card.model_id, messages)
        else:
            counts = await self._counts.at_the_end(card.model_id, asked.tenant, messages, budget_tokens=room)
        budget = room
        for _ in range(TRUNCATION_ROUNDS_MAX):
            selection = select_messages(messages, counts, budget_tokens=budget)
            prompt = await self._engine.render(card.model_id, selection.kept, shape=asked.parameters.shape)
            excess = len(prompt.token_ids) - room
            if excess <= 0:
                break
            budget -= excess
        return self._view(card, asked, selection.kept, _dropped(messages, selection.dropped), prompt)

    def _view(
        self,
        card: ModelCard,
        asked: Asked,
        kept: Sequence[Message],
        dropped: DroppedMessages | None,
        prompt: RenderedPrompt,
    ) -> View:
        check_token_ids(asked.parameters, vocabulary_size=prompt.vocabulary_size)
        parameters = effective_parameters(
            card,
            asked.parameters,
            prompt_tokens=len(prompt.token_ids),
            new_seed=self._new_seed,
            shrinking=asked.max_tokens_shrinks,
        )
        message_ids = tuple([message.message_id for message in kept])
        context = ContextUsed(message_ids=message_ids, dropped=dropped, truncation=asked.truncation)
        return View(context=context, prompt=prompt, parameters=parameters)


def with_instructions(messages: Sequence[Message], instructions: Message | None) -> Sequence[Message]:
    """The messages with what one request says before them."""
    return messages if instructions is None else (instructions, *messages)


def without_instructions(context: ContextUsed, instructions: Message | None) -> ContextUsed:
    """The messages of the session alone; what stands before them has a place of its own in the event."""
    return context if instructions is None else replace(context, message_ids=context.message_ids[1:])


def _dropped(messages: Sequence[Message], where: range) -> DroppedMessages | None:
    if not where:
        return None
    first, last = messages[where[0]].message_id, messages[where[-1]].message_id
    return DroppedMessages(first_message_id=first, last_message_id=last, count=len(where))
