"""POST /v1/completions: prompts that are continued as they stand, each a completion of its own in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from sanic import HTTPResponse

from manent.adapters.http.answers import members_answer, queue_headers
from manent.adapters.http.chat_command import check_stream_options, requested_parameters
from manent.adapters.http.chat_stream import told_error
from manent.adapters.http.command_members import command_members
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.idempotency import idempotency_key
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.parameter_table import honored_members
from manent.adapters.http.parameters import STREAM_OPTIONS
from manent.adapters.http.text_members import TextChunkEncoder, text_members
from manent.adapters.http.text_stream import stream_completions
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_text import TEXT_MAX_TOKENS, TEXT_PARAMETERS, TextRequest
from manent.domain.errors import DomainError
from manent.domain.prompts import TextPrompt
from manent.domain.usecases.accept_completion import ChatCommand
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import Accepted


async def create_text_completion(exchange: Exchange) -> HTTPResponse | None:
    """Continue each prompt; None where the answer was streamed. Where one prompt fails, all do."""
    asked = await read_body(exchange.request, lambda: read_text_request(json_object(exchange.request)))
    exchange.request.watch_connection()
    with exchange.request.streams.place() if asked.stream else nullcontext():
        return await _answer(exchange, asked)


async def _answer(exchange: Exchange, asked: TextRequest) -> HTTPResponse | None:
    readers: list[Reader] = []
    try:
        for command in _commands(asked, exchange):
            readers.append(Reader(exchange.services.chat.start(command)))  # noqa: PERF401 (those that began must be stopped)
        exchange.request.completion = readers[0].running
        if asked.stream:
            await stream_completions(exchange, readers, lambda accepted: _encoders(asked, accepted))
            return None
        runs = [reader.running for reader in readers]
        accepted = [await running.accepted() for running in runs]
        generated = [await running.generated() for running in runs]
    except asyncio.CancelledError:
        _leave(readers, "client_disconnected")
        raise
    except DomainError as error:
        _leave(readers, "another_prompt_failed")
        raise (told_error(readers[0].running, error) if readers else error) from None
    outputs = [running.output for running in runs]
    members = text_members(accepted, generated, outputs, echo=bool(asked.echo))
    return members_answer(members, headers=queue_headers(runs[0]))


def read_text_request(body: Mapping[str, Any]) -> TextRequest:
    """The request in ``body``.

    Raises:
        RequestRefused: a parameter is missing, wrong, unknown or not supported, or contradicts another.
    """
    honored = honored_members(body, TEXT_PARAMETERS)
    if isinstance(honored.get("stream_options"), dict):
        honored["stream_options"] = honored_members(honored["stream_options"], STREAM_OPTIONS, path="stream_options")
    asked = validated(TextRequest, honored)
    if asked.echo and asked.logprobs is not None:
        raise RequestRefused(
            "unsupported_parameter",
            "Unsupported parameter: 'echo' together with logprobs: log probabilities are those of what is generated, "
            "and the prompt's are not computed; leave one of them out.",
            param="echo",
        )
    check_stream_options(asked)
    return asked


def _commands(asked: TextRequest, exchange: Exchange) -> list[ChatCommand]:
    """One for each prompt. With an idempotency key each prompt has one of its own."""
    key = idempotency_key(exchange)
    command = ChatCommand(
        **command_members(asked, exchange),
        user=asked.user,
        metadata=asked.metadata,
        messages=(),
        parameters=requested_parameters(
            asked,
            max_tokens=asked.max_tokens or TEXT_MAX_TOKENS,
            logprobs=asked.logprobs is not None,
            top_logprobs=asked.logprobs or 0,
        ),
    )
    return [
        replace(
            command,
            prompt=prompt,
            idempotency=None if key is None else replace(key, key=f"{key.key} prompt {number}"),
        )
        for number, prompt in enumerate(_prompts(asked.prompt))
    ]


def _prompts(given: str | list[str] | list[int] | list[list[int]]) -> list[TextPrompt]:
    if isinstance(given, str):
        return [TextPrompt(text=given)]
    texts = [TextPrompt(text=item) for item in given if isinstance(item, str)]
    token_lists = [TextPrompt(token_ids=tuple(item)) for item in given if isinstance(item, list)]
    tokens = tuple(item for item in given if isinstance(item, int))
    return [*texts, *token_lists] or [TextPrompt(token_ids=tokens)]


def _encoders(asked: TextRequest, accepted: Sequence[Accepted]) -> list[TextChunkEncoder]:
    return [
        TextChunkEncoder(one, accepted[0], number=number, echo=bool(asked.echo), include_usage=asked.includes_usage)
        for number, one in enumerate(accepted)
    ]


def _leave(readers: Sequence[Reader], reason: str) -> None:
    for reader in readers:
        reader.leave(reason)
