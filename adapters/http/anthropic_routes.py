"""The routes of Anthropic's messages, a part of the one table."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import anthropic_messages as messages
from manent.adapters.http import wire_anthropic_answers as answers
from manent.adapters.http import wire_anthropic_requests as requests
from manent.adapters.http.anthropic_models import BETA_QUERY
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, CHAT_ERRORS, ENGINE_ERRORS, STORE_ERRORS, Route
from manent.domain.access import Scope

COUNT_ERRORS = (
    *BODY_ERRORS,
    "unsupported_parameter",
    *BODY_LIMITS,
    *STORE_ERRORS,
    "model_not_found",
    "wrong_model_type",
    *ENGINE_ERRORS,
    "shutting_down",
)

ANTHROPIC_ROUTES: Sequence[Route] = (
    Route(
        name="createMessage",
        method="POST",
        path="/messages",
        handler=messages.create_message,
        summary="Answer a conversation, as Anthropic's API does",
        tag="Messages",
        scope=Scope.CHAT,
        body=requests.MessageRequest,
        answer=answers.AnthropicMessage,
        streams=answers.AnthropicStreamEvent,
        error_answer=answers.AnthropicErrorAnswer,
        query=(BETA_QUERY,),
        takes=("Idempotency-Key",),
        errors=CHAT_ERRORS,
    ),
    Route(
        name="countMessageTokens",
        method="POST",
        path="/messages/count_tokens",
        handler=messages.count_message_tokens,
        summary="Count the tokens that a message would begin with",
        tag="Messages",
        scope=Scope.CHAT,
        body=requests.TokenCountRequest,
        answer=answers.MessageTokensCount,
        error_answer=answers.AnthropicErrorAnswer,
        query=(BETA_QUERY,),
        errors=COUNT_ERRORS,
    ),
)
