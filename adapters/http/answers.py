"""Responses: JSON with the right headers, and the domain's objects as the wire has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from pydantic import BaseModel
from sanic import HTTPResponse

from manent.adapters.http.errors import error_body, error_headers, row_of
from manent.adapters.http.wire_responses import CompletionTokensDetails, CompletionUsage, PromptTokensDetails
from manent.domain.errors import DomainError
from manent.domain.generation import Provenance, Usage

JSON_TYPE = "application/json"
FINGERPRINT_DIGITS = 12


def json_answer(model: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """A JSON response."""
    return bytes_answer(model.model_dump_json().encode(), JSON_TYPE, status=status, headers=headers)


def bytes_answer(
    body: bytes, content_type: str, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> HTTPResponse:
    """A response whose body is ``body``."""
    return HTTPResponse(body, status=status, headers=dict(headers or {}), content_type=content_type)


def error_answer(error: DomainError) -> HTTPResponse:
    """The response that tells ``error``."""
    return bytes_answer(error_body(error), JSON_TYPE, status=row_of(error).status, headers=error_headers(error))


def usage_answer(usage: Usage) -> CompletionUsage:
    """Token counts in OpenAI's words."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0),
    )


def system_fingerprint(provenance: Provenance) -> str:
    """One short name for everything that the same seed needs to give the same answer."""
    parts = [
        provenance.weights_digest,
        provenance.tokenizer_digest,
        provenance.template_digest,
        sorted(provenance.versions.items()),
        provenance.device,
        provenance.dtype,
        provenance.quantization,
    ]
    return f"fp_{hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:FINGERPRINT_DIGITS]}"
