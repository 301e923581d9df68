"""GET /v1/chat/completions/{id}/context: what exactly the model saw."""

from __future__ import annotations

import re

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.replay_answers import sampling_answer
from manent.adapters.http.session_messages import message_answer
from manent.adapters.http.wire_replay import CompletionContext, Problem, SeenPrompt
from manent.domain.errors import CompletionNotFound
from manent.domain.usecases import completion_context

COMPLETION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)


async def retrieve_context(exchange: Exchange, completion_id: str) -> HTTPResponse:
    """The context of a completion, its prompt rendered again."""
    context = await exchange.services.replays.context.run(exchange.principal, possible_completion(completion_id))
    return json_answer(_context(context))


def possible_completion(completion_id: str) -> str:
    """The id, if it is one that a completion could have; CompletionNotFound otherwise."""
    if not COMPLETION_ID.fullmatch(completion_id):
        raise CompletionNotFound(f"no completion {completion_id[:160]!r} was found")
    return completion_id


def _context(context: completion_context.CompletionContext) -> CompletionContext:
    requested, prompt, problem = context.requested, context.prompt, context.problem
    return CompletionContext(
        id=requested.completion_id,
        session_id=requested.session_id,
        position=context.header.position,
        model=requested.model_id,
        model_asked=requested.model_asked,
        parameters=sampling_answer(requested.parameters),
        truncation=None if requested.context is None else requested.context.truncation.value,
        messages=[message_answer(message) for message in context.messages],
        dropped=[message_answer(message) for message in context.dropped],
        prompt_tokens=requested.prompt_tokens,
        verdict=context.verdict.value,
        changed=list(context.changed),
        prompt=None if prompt is None else SeenPrompt(text=prompt.text, token_ids=list(prompt.rendered.token_ids)),
        problem=None if problem is None else Problem(code=problem.code, message=problem.message),
    )
