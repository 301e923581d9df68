"""Responses: JSON with the right headers, and the domain's objects as the wire has them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import starmap
from operator import add
from typing import Any

import msgspec
from pydantic import BaseModel
from sanic import HTTPResponse
from sanic.helpers import has_message_body
from sanic.response.types import HEADER_TRANSLATION_TABLE

from manent.adapters.http.errors import error_body, error_headers, row_of
from manent.adapters.http.wire_completions import CompletionUsage
from manent.domain.admission import QueuePlace
from manent.domain.errors import DomainError
from manent.domain.events import CompletionGenerated
from manent.domain.generation import FinishReason, Provenance, TokenCandidate, TokenLogprobs, Usage
from manent.domain.messages import ToolCall
from manent.domain.usecases.running import RunningCompletion

JSON_TYPE = "application/json"
FINGERPRINT_DIGITS = 12
HEADERS_REMEMBERED_MAX = 128


class Answer(HTTPResponse):
    """A response; what its headers are as bytes is remembered, since most of them are those of all answers."""

    __slots__ = ()

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        """See ``BaseHTTPResponse.processed_headers``."""
        if has_message_body(self.status):  # type: ignore[no-untyped-call]  # Sanic's
            self.headers.setdefault("content-type", self.content_type)
        return starmap(_header_bytes, self.headers.items())


@lru_cache(maxsize=HEADERS_REMEMBERED_MAX)
def _header_bytes(name: str, value: object) -> tuple[bytes, bytes]:
    """A header as Sanic sends it."""
    name_bytes, value_bytes = (
        text.translate(HEADER_TRANSLATION_TABLE).encode(errors="surrogateescape") for text in (name, str(value))
    )
    return name_bytes, value_bytes


def json_answer(model: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """A JSON response."""
    return bytes_answer(model.model_dump_json().encode(), JSON_TYPE, status=status, headers=headers)


def members_answer(members: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """A JSON response of plain members, for what is answered often or is long: a model costs several times as much."""
    return bytes_answer(msgspec.json.encode(members), JSON_TYPE, headers=headers)


def bytes_answer(
    body: bytes, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """A response whose body is ``body``."""
    return Answer(body, status=status, headers=dict(headers or {}), content_type=content_type)


def error_answer(error: DomainError) -> HTTPResponse:
    """The response that tells ``error``."""
    return bytes_answer(error_body(error), JSON_TYPE, status=row_of(error).status, headers=error_headers(error))


def usage_answer(usage: Usage) -> CompletionUsage:
    """Token counts in OpenAI's words."""
    return CompletionUsage.model_validate(usage_members([usage]))


def usage_members(usages: Sequence[Usage]) -> dict[str, Any]:
    """The sum of token counts, a ``CompletionUsage``; plain, since each answer has one."""
    total = reduce(add, usages)
    return {
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "total_tokens": total.total_tokens,
        "prompt_tokens_details": {"cached_tokens": total.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": total.reasoning_tokens},
    }


def finish_reasons(generated: CompletionGenerated) -> list[str]:
    """Why each choice ended."""
    reasons = [generated.finish_reason, *(other.finish_reason for other in generated.alternatives)]
    return [(reason or FinishReason.STOP).value for reason in reasons]


def logprobs_answer(logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
    """Log probabilities in OpenAI's words, a ``ChoiceLogprobs``; plain, since a stream has many."""
    return {
        "content": [
            {**_candidate(entry.chosen), "top_logprobs": [_candidate(candidate) for candidate in entry.top]}
            for entry in logprobs
        ],
        "refusal": None,
    }


def tool_calls_answer(calls: Sequence[ToolCall]) -> list[dict[str, Any]] | None:
    """Tool calls as OpenAI has them; None where there are none."""
    found = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    return found or None


def _candidate(candidate: TokenCandidate) -> dict[str, Any]:
    return {
        "token": candidate.token_bytes.decode("utf-8", "replace"),
        "logprob": candidate.logprob,
        "bytes": list(candidate.token_bytes),
    }


def queue_headers(running: RunningCompletion) -> dict[str, str]:
    """How many were ahead in the model's queue when the request came, and how long it waited for its place."""
    return place_headers(running.place)


def place_headers(place: QueuePlace) -> dict[str, str]:
    """The same, of whoever has a place."""
    return {"x-queue-position": str(place.position), "x-queue-wait-ms": str(round(place.waited_s * 1000))}


def session_headers(session_id: str | None) -> dict[str, str]:
    """The header that names the session of an answer."""
    return {} if session_id is None else {"x-session-id": session_id}


def system_fingerprint(provenance: Provenance) -> str:
    """One short name for everything that the same seed needs to give the same answer."""
    return _fingerprint(
        provenance.weights_digest,
        provenance.tokenizer_digest,
        provenance.template_digest,
        tuple(sorted(provenance.versions.items())),
        provenance.device,
        provenance.dtype,
        provenance.quantization,
    )


@lru_cache(maxsize=64)
def _fingerprint(*parts: str | tuple[tuple[str, str], ...] | None) -> str:
    return f"fp_{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:FINGERPRINT_DIGITS]}"
