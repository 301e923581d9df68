"""A request for a response on its way into the domain: policy, validation, and what holds across parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http.chat_command import domain_seed, domain_stop
from manent.adapters.http.command_members import command_members
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.response_input import parts_of
from manent.adapters.http.response_parameters import INPUT_PARAMETERS, RESPONSE_PARAMETERS, honored_response
from manent.adapters.http.response_tools import shape_of_response, told_text, told_tools
from manent.adapters.http.route import Handler
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_response_requests import InputTokensRequest, ResponseInput, ResponseRequest
from manent.domain.errors import DomainError
from manent.domain.generation import RequestedParameters, Truncation
from manent.domain.messages import Message, Role, TextPart
from manent.domain.output_shape import OutputShape
from manent.domain.reconcile import SessionMode
from manent.domain.responses import ResponseDetails
from manent.domain.schema_limits import check_shape
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.create_response import ResponseCommand

LOGPROBS = "message.output_text.logprobs"
RESPONSE_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "session_id": "conversation",
    "response_format.json_schema.schema": "text.format.schema",
}
"""What the domain calls after chat completions, and responses call otherwise."""


def read_response_request(body: Mapping[str, Any], *, items_max: int) -> ResponseRequest:
    """The request for a response in ``body``.

    Raises:
        RequestRefused: a parameter is missing, wrong, unknown or not supported, or contradicts another.
    """
    asked = validated(ResponseRequest, honored_response(body, RESPONSE_PARAMETERS, items_max=items_max))
    _check_together(asked)
    return asked


def read_input_request(body: Mapping[str, Any], *, items_max: int) -> InputTokensRequest:
    """The request for a count of tokens in ``body``; raises as ``read_response_request``."""
    asked = validated(InputTokensRequest, honored_response(body, INPUT_PARAMETERS, items_max=items_max))
    _check_one_past(asked, asked.conversation_id)
    return asked


async def response_command(asked: ResponseRequest, body: Mapping[str, Any], exchange: Exchange) -> ResponseCommand:
    """What the use case is told; ``body`` is what is told back of it.

    Raises:
        RequestRefused, InvalidValue: parameters contradict each other, or an image cannot be taken.
    """
    services = exchange.services
    logprobs = LOGPROBS in (asked.include or ()) or bool(asked.top_logprobs)
    chat = ChatCommand(
        **command_members(asked, exchange),
        user=asked.user,
        metadata=asked.metadata,
        messages=(),
        parameters=RequestedParameters(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            max_tokens=asked.max_output_tokens,
            stop=domain_stop(asked.stop),
            seed=None if asked.seed is None else domain_seed(asked.seed),
            frequency_penalty=asked.frequency_penalty,
            presence_penalty=asked.presence_penalty,
            logprobs=logprobs,
            top_logprobs=asked.top_logprobs or 0,
            deterministic=bool(asked.deterministic),
            shape=_shape(asked),
        ),
        session_id=asked.conversation_id or asked.session_id,
        session_mode=SessionMode.APPEND,
        truncation=Truncation(asked.truncation or Truncation.DISABLED),
        max_tokens_shrinks=True,
        instructions=_instructions(asked, exchange),
        idempotency=idempotency_key(exchange),
    )
    return ResponseCommand(
        chat=chat,
        parts=await parts_of(asked.input, path="input", ids=services.ids, images=services.images),
        details=ResponseDetails(
            previous_response_id=asked.previous_response_id,
            in_conversation=chat.session_id is not None,
            background=bool(asked.background),
            echo=_echo(asked, body),
        ),
        may_start=asked.conversation_id is None,
        store=asked.store is not False,
    )


async def input_command(asked: InputTokensRequest, exchange: Exchange) -> ResponseCommand:
    """What the use case is told, that counts; raises as ``response_command``."""
    services = exchange.services
    chat = ChatCommand(
        principal=exchange.principal,
        model=asked.model,
        messages=(),
        parameters=RequestedParameters(shape=_shape(asked)),
        session_id=asked.conversation_id,
        instructions=_instructions(asked, exchange),
    )
    return ResponseCommand(
        chat=chat,
        parts=await parts_of(asked.input, path="input", ids=services.ids, images=services.images),
        details=ResponseDetails(
            previous_response_id=asked.previous_response_id, in_conversation=False, background=False, echo="{}"
        ),
        store=False,
    )


def in_other_words(names: Mapping[str, str], *, schema: str = "parameters") -> Callable[[Handler], Handler]:
    """Have the errors of a handler name its parameters, where the domain names those of chats and sessions.

    ``schema`` is what the schema of a tool's arguments is called.
    """

    def wrapping(handler: Handler) -> Handler:
        @wraps(handler)
        async def handle(exchange: Exchange, **path: str) -> HTTPResponse | None:
            try:
                return await handler(exchange, **path)
            except RequestRefused:
                raise
            except DomainError as error:
                param = error.param
                if param is not None:
                    renamed = param.replace("].function.parameters", f"].{schema}", 1).replace("].function.", "].", 1)
                    error.param = names.get(param, renamed)
                    error.message = error.message.replace(param, error.param) if "." in param else error.message
                raise

        return handle

    return wrapping


def _shape(asked: ResponseInput) -> OutputShape | None:
    shape = shape_of_response(asked)
    if shape is not None:
        check_shape(shape)
    return shape


def _instructions(asked: ResponseInput, exchange: Exchange) -> Message | None:
    if not asked.instructions:
        return None
    return Message(
        message_id=exchange.services.ids.new("msg_"), role=Role.SYSTEM, content=(TextPart(text=asked.instructions),)
    )


def _echo(asked: ResponseRequest, body: Mapping[str, Any]) -> str:
    """What is told back as it came, as JSON text, defaults filled in."""
    reasoning = asked.reasoning
    echo = {
        "tools": told_tools(body.get("tools") or ()),
        "tool_choice": body.get("tool_choice") or "auto",
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "text": told_text(asked),
        "reasoning": {
            "effort": None if reasoning is None else reasoning.effort,
            "summary": None if reasoning is None else reasoning.summary,
        },
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "safety_identifier": asked.safety_identifier,
        "prompt_cache_key": asked.prompt_cache_key,
        "prompt_cache_retention": asked.prompt_cache_retention,
    }
    return json.dumps(echo, ensure_ascii=False, separators=(",", ":"))


def _check_together(asked: ResponseRequest) -> None:
    named = asked.conversation_id
    if named is not None and asked.session_id not in {None, named}:
        raise _contradicts("session_id", f"it is {asked.session_id!r}, and conversation is {named!r}; send one of them")
    _check_one_past(asked, named or asked.session_id)
    if asked.store is False and asked.background:
        raise _contradicts("background", "a background response has to be stored; leave store out, or background")
    if asked.store is False and (named or asked.session_id):
        raise _contradicts(
            "store", "the content of a conversation is always recorded; leave out store, or the conversation"
        )
    if asked.stream_options is not None and not asked.stream:
        raise _contradicts("stream_options", "it is only allowed when stream is true")


def _check_one_past(asked: ResponseInput, conversation: str | None) -> None:
    if conversation is not None and asked.previous_response_id is not None:
        raise _contradicts(
            "previous_response_id", "it is mutually exclusive with conversation; both say what came before"
        )


def _contradicts(param: str, why: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"Invalid value for '{param}': {why}.", param=param)
