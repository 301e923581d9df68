"""POST /v1/chat/completions: from the wire to the use case, and its answer back, whole or streamed."""

from __future__ import annotations

import asyncio

from sanic import HTTPResponse

from manent.adapters.http.answers import (
    json_answer,
    logprobs_answer,
    queue_headers,
    system_fingerprint,
    tool_calls_answer,
    usage_answer,
)
from manent.adapters.http.chat_command import chat_command, read_chat_request
from manent.adapters.http.chat_stream import stream_completion, told_error
from manent.adapters.http.context import Exchange
from manent.adapters.http.json_body import json_object, read_body
from manent.adapters.http.retries import Retry
from manent.adapters.http.wire_completions import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    ToolCallAnswer,
)
from manent.domain.errors import CompletionCancelledError
from manent.domain.generation import FinishReason
from manent.domain.output import PartialChoice
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import RunningCompletion


async def create_chat_completion(exchange: Exchange) -> HTTPResponse | None:
    """Answer a chat; None where the answer was streamed.

    A client that disconnects has its handler cancelled, at whatever it waits for; the completion is told at once, or
    after the time in which an SDK that tries again would have come back.
    """
    asked = await read_body(
        exchange.request,
        lambda: read_chat_request(json_object(exchange.request), messages_max=exchange.limits.messages_max),
    )
    exchange.request.watch_connection()
    retry = Retry.of(exchange)
    running = None if retry is None else retry.attached()
    if running is None:
        running = exchange.services.chat.start(await chat_command(asked, exchange))
    if retry is not None:
        retry.remember(running)
    if asked.background:
        running.join()  # the log reads along
    reader = Reader(running)
    try:
        if asked.stream:
            await stream_completion(exchange, reader, include_usage=asked.includes_usage)
            return None
        return await _whole_completion(running)
    except asyncio.CancelledError:
        if asked.stream or retry is None:
            reader.leave("client_disconnected")
        else:
            retry.leave_later(reader, "client_disconnected")
        raise
    except CompletionCancelledError as error:
        raise told_error(running, error) from None


async def _whole_completion(running: RunningCompletion) -> HTTPResponse:
    accepted = await running.accepted()
    generated = await running.generated()
    parameters = accepted.requested.parameters
    output = running.output(parameters.n)
    reasons = [generated.finish_reason, *(other.finish_reason for other in generated.alternatives)]
    completion = ChatCompletion(
        id=running.completion_id,
        created=accepted.requested.requested_at_us // 1_000_000,
        model=accepted.requested.model_id,
        choices=[
            Choice(
                index=index,
                message=_message(choice),
                logprobs=_logprobs(choice) if parameters.logprobs else None,
                finish_reason=(reason or FinishReason.STOP).value,
            )
            for index, (choice, reason) in enumerate(zip(output.choices, reasons, strict=True))
        ],
        usage=usage_answer(generated.usage),
        system_fingerprint=system_fingerprint(generated.provenance),
        session_id=running.session_id,
    )
    return json_answer(completion, headers={**session_headers(running.session_id), **queue_headers(running)})


def _message(choice: PartialChoice) -> AssistantMessage:
    calls = tool_calls_answer(choice.tool_calls)
    return AssistantMessage(
        content=choice.text or (None if calls else ""),
        reasoning_content=choice.reasoning or None,
        tool_calls=None if calls is None else [ToolCallAnswer.model_validate(call) for call in calls],
    )


def _logprobs(choice: PartialChoice) -> ChoiceLogprobs:
    return ChoiceLogprobs.model_validate(logprobs_answer(choice.logprobs))


def session_headers(session_id: str | None) -> dict[str, str]:
    """The header that names the session of an answer."""
    return {} if session_id is None else {"x-session-id": session_id}
