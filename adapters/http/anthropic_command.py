"""A request for a message on its way into the domain: policy, validation, and what holds across parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manent.adapters.http.anthropic_content import domain_conversation
from manent.adapters.http.anthropic_parameters import COUNT_PARAMETERS, MESSAGE_PARAMETERS, honored_message
from manent.adapters.http.anthropic_shape import shape_of_message
from manent.adapters.http.chat_command import check_widths, domain_seed
from manent.adapters.http.command_members import command_members
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_anthropic_requests import MessageRequest, TokenCountRequest
from manent.domain.generation import RequestedParameters, Truncation
from manent.domain.reconcile import SessionMode
from manent.domain.usecases.accept_completion import ChatCommand

MESSAGE_NAMES = {
    "stop": "stop_sequences",
    "response_format.json_schema.schema": "output_config.format.schema",
}
"""What the domain calls after chat completions, and messages call otherwise."""


def read_message_request(body: Mapping[str, Any], *, messages_max: int) -> MessageRequest:
    """The request for a message in ``body``.

    Raises:
        RequestRefused: a parameter is missing, wrong, unknown or not supported, or contradicts another.
        InvalidValue: the form that the answer is asked to have is beyond its bounds.
    """
    check_widths(body, messages_max)
    asked = validated(MessageRequest, honored_message(body, MESSAGE_PARAMETERS))
    _check_together(asked)
    shape_of_message(asked)
    return asked


def read_count_request(body: Mapping[str, Any], *, messages_max: int) -> TokenCountRequest:
    """The request for a count of tokens in ``body``; raises as ``read_message_request``."""
    check_widths(body, messages_max)
    asked = validated(TokenCountRequest, honored_message(body, COUNT_PARAMETERS))
    _check_thinking(asked)
    shape_of_message(asked)
    return asked


async def message_command(asked: MessageRequest, exchange: Exchange) -> ChatCommand:
    """What the use case is told.

    Raises:
        RequestRefused, InvalidValue: a block is where it does not belong, or an image cannot be taken.
    """
    services = exchange.services
    return ChatCommand(
        **command_members(asked, exchange),
        messages=await domain_conversation(
            asked, ids=services.ids, images=services.images, in_session=asked.session_id is not None
        ),
        parameters=RequestedParameters(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            max_tokens=asked.max_tokens,
            stop=tuple(asked.stop_sequences or ()),
            seed=None if asked.seed is None else domain_seed(asked.seed),
            deterministic=bool(asked.deterministic),
            shape=shape_of_message(asked),
        ),
        session_id=asked.session_id,
        session_mode=SessionMode(asked.session_mode or SessionMode.AUTO),
        truncation=Truncation(asked.truncation or Truncation.DISABLED),
        max_tokens_shrinks=True,
        store_content=bool(asked.store),
        user=None if asked.metadata is None else asked.metadata.user_id,
        idempotency=idempotency_key(exchange),
    )


def _check_together(asked: MessageRequest) -> None:
    last = len(asked.messages) - 1
    if asked.messages[last].role == "assistant":
        raise RequestRefused(
            "unsupported_parameter",
            f"Unsupported parameter: 'messages[{last}]': the conversation ends with the assistant's turn, and Manent "
            "begins a turn of its own instead of going on with it; end with a user's.",
            param=f"messages[{last}]",
        )
    if asked.session_mode is not None and asked.session_id is None:
        raise _contradicts("session_mode", "it is only allowed together with session_id")
    if asked.store is False and asked.session_id is not None:
        raise _contradicts("store", "the content of a session is always recorded; leave out store, or session_id")
    _check_thinking(asked)


def _check_thinking(asked: TokenCountRequest) -> None:
    thinking = asked.thinking
    if thinking is not None and thinking.type == "enabled" and thinking.budget_tokens is None:
        param = "thinking.budget_tokens"
        raise RequestRefused("missing_required_parameter", f"Missing required parameter: '{param}'.", param=param)


def _contradicts(param: str, why: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {why}.", param=param)
