"""A chat request's way into the domain: policy, validation, and what holds across parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manent.adapters.http.command_members import command_members
from manent.adapters.http.conditions import IF_MATCH, expected_version
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.message_parts import text_parts, with_images
from manent.adapters.http.message_rules import check_messages
from manent.adapters.http.output_shape import shape_of
from manent.adapters.http.parameters import honored_chat, honored_session
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_requests import (
    INT64_MAX,
    ChatMessage,
    ChatRequest,
    SamplingRequest,
    SessionRequest,
    conversation_id,
)
from manent.domain.generation import RequestedParameters, Truncation
from manent.domain.messages import Message, Role, ToolCall
from manent.domain.output_shape import OutputShape
from manent.domain.ports import Ids
from manent.domain.reconcile import SessionMode
from manent.domain.schema_limits import check_shape
from manent.domain.session_upkeep import ExpectedVersion
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.manage_sessions import StartSession

ITEMS_MAX = 20_000
"""Most items in one array or object of a request, and most content parts in all its messages."""
COLLECTIONS = (list, dict)
ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}


def read_chat_request(body: Mapping[str, Any], *, messages_max: int) -> ChatRequest:
    """The request in ``body``.

    Raises:
        RequestRefused: a parameter is missing, wrong, unknown or not supported, or contradicts another.
        InvalidValue: the form that the answer is asked to have is beyond its bounds.
    """
    check_widths(body, messages_max)
    asked = _with_session(validated(ChatRequest, honored_chat(body)))
    check_messages(asked.messages)
    _check_together(asked)
    if (shape := shape_of(asked)) is not None:
        check_shape(shape)
    return asked


def read_session_request(body: Mapping[str, Any], *, messages_max: int) -> SessionRequest:
    """The request for a session in ``body``.

    Raises:
        RequestRefused: as ``read_chat_request``.
    """
    check_widths(body, messages_max)
    asked = validated(SessionRequest, honored_session(body))
    check_messages(asked.messages)
    return asked


async def chat_command(asked: ChatRequest, exchange: Exchange) -> ChatCommand:
    """What the use case is told.

    Raises:
        RequestRefused, InvalidValue: an image cannot be taken.
    """
    services = exchange.services
    messages = await with_images(domain_messages(asked.messages, services.ids), asked.messages, services.images)
    return ChatCommand(
        **command_members(asked, exchange),
        user=asked.user,
        metadata=asked.metadata,
        messages=messages,
        parameters=requested_parameters(
            asked,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            logprobs=bool(asked.logprobs),
            top_logprobs=asked.top_logprobs or 0,
            shape=shape_of(asked),
        ),
        session_id=asked.session_id,
        session_mode=SessionMode.AUTO if asked.session_mode is None else SessionMode(asked.session_mode),
        truncation=Truncation.DISABLED if asked.truncation is None else Truncation(asked.truncation),
        store_content=bool(asked.store),
        idempotency=idempotency_key(exchange),
        expected=_expected(asked, exchange),
    )


async def session_command(asked: SessionRequest, exchange: Exchange) -> StartSession:
    """What the use case is told; raises as ``chat_command``."""
    services = exchange.services
    messages = await with_images(domain_messages(asked.messages, services.ids), asked.messages, services.images)
    return StartSession(
        principal=exchange.principal,
        session_id=asked.session_id,
        metadata=asked.metadata,
        ttl_s=asked.ttl_s,
        messages=messages,
        request_id=exchange.request.request_id,
        idempotency=idempotency_key(exchange),
    )


def domain_messages(messages: Sequence[ChatMessage], ids: Ids) -> tuple[Message, ...]:
    """Messages of the wire as the domain has them, each with a new id, and without images."""
    return tuple([_domain_message(message, ids.new("msg_")) for message in messages])


def _domain_message(message: ChatMessage, message_id: str) -> Message:
    calls = [
        ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return Message(
        message_id=message_id,
        role=ROLES[message.role],
        content=text_parts(message.content),
        name=message.name,
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
        reasoning=message.reasoning_content or message.reasoning,
    )


def requested_parameters(
    asked: SamplingRequest,
    *,
    max_tokens: int | None,
    logprobs: bool,
    top_logprobs: int,
    shape: OutputShape | None = None,
) -> RequestedParameters:
    """What a request says about sampling, as the domain has it."""
    return RequestedParameters(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        max_tokens=max_tokens,
        logprobs=logprobs,
        top_logprobs=top_logprobs,
        shape=shape,
        stop=domain_stop(asked.stop),
        stop_token_ids=tuple(asked.stop_token_ids or ()),
        seed=None if asked.seed is None else domain_seed(asked.seed),
        frequency_penalty=asked.frequency_penalty,
        presence_penalty=asked.presence_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias={int(token): bias for token, bias in (asked.logit_bias or {}).items()},
        n=asked.n or 1,
        deterministic=bool(asked.deterministic),
    )


def domain_seed(seed: int) -> int:
    """OpenAI's signed 64-bit seed as a non-negative one: the sign bit is dropped, so equal seeds stay equal."""
    return seed & INT64_MAX


def _expected(asked: ChatRequest, exchange: Exchange) -> ExpectedVersion | None:
    expected = expected_version(exchange)
    if expected is not None and asked.session_id is None:
        raise RequestRefused(
            "invalid_value",
            "If-Match compares the version of a session; send it together with session_id",
            param=IF_MATCH,
        )
    return expected


def domain_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    """Stop sequences as the domain has them."""
    if stop is None:
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def check_widths(body: Mapping[str, Any], messages_max: int) -> None:
    """Refuse by length, with RequestRefused, before anything looks at each item."""
    for name, value in body.items():
        if isinstance(value, COLLECTIONS):
            _check_width(name, len(value), min(messages_max, ITEMS_MAX) if name == "messages" else ITEMS_MAX)
    messages = body.get("messages")
    if isinstance(messages, list):
        contents = [message.get("content") for message in messages if isinstance(message, dict)]
        parts = [len(content) for content in contents if isinstance(content, list)]
        _check_width("messages", sum(parts), ITEMS_MAX, "content parts")


def _check_width(name: str, found: int, allowed: int, what: str = "items") -> None:
    if found > allowed:
        raise RequestRefused(
            "invalid_value", f"{name[:80]} has {found} {what}; at most {allowed} are allowed", param=name[:80]
        )


def _with_session(asked: ChatRequest) -> ChatRequest:
    """The request with the conversation that it names as its session."""
    named = conversation_id(asked.conversation)
    if named is None:
        return asked
    if asked.session_id not in {None, named}:
        raise RequestRefused(
            "invalid_value",
            f"session_id is {asked.session_id!r} and conversation {named!r}; they are two names of one thing, send one "
            "of them",
            param="conversation",
        )
    return asked.model_copy(update={"session_id": named})


def check_stream_options(asked: SamplingRequest) -> None:
    """Raise RequestRefused where options of a stream are given, and no stream is asked for."""
    if asked.stream_options is not None and not asked.stream:
        raise RequestRefused(
            "invalid_value", "stream_options is only allowed when stream is true", param="stream_options"
        )


def _check_together(asked: ChatRequest) -> None:
    both = {asked.max_tokens, asked.max_completion_tokens} - {None}
    if len(both) > 1:
        raise RequestRefused(
            "invalid_value",
            f"max_tokens is {asked.max_tokens} and max_completion_tokens {asked.max_completion_tokens}; "
            "they are two names of one limit, send one of them",
            param="max_completion_tokens",
        )
    if asked.top_logprobs and not asked.logprobs:
        raise RequestRefused(
            "invalid_value", "top_logprobs is only allowed when logprobs is true", param="top_logprobs"
        )
    check_stream_options(asked)
    if asked.session_mode is not None and asked.session_id is None:
        raise RequestRefused(
            "invalid_value", "session_mode is only allowed together with session_id", param="session_mode"
        )
    if asked.store is False and asked.session_id is not None:
        # A session's content is its state: to record it in spite of this wish would ignore the wish in silence.
        raise RequestRefused(
            "invalid_value",
            "store is false, but the content of a session is always recorded; leave out store or session_id",
            param="store",
        )
