"""What spans say: the names of OpenTelemetry's HTTP and GenAI conventions, and never content.

They are written out, since the package that has them as constants calls them incubating and moves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from manent.domain.telemetry import OperationEnded, RequestEnded

MODEL_CHARS_MAX = 200

Value = str | int | float | Sequence[str]


def request_attributes(ended: RequestEnded) -> dict[str, Value]:
    """Those of a request's span."""
    found: dict[str, Value] = {
        "http.request.method": ended.method,
        "http.route": ended.route,
        "http.response.status_code": ended.status,
    }
    if ended.error is not None:
        found["error.type"] = ended.error
    if ended.scope is not None:
        found["manent.request.id"] = ended.scope.request_id
        if ended.scope.correlation_id is not None:
            found["manent.correlation.id"] = ended.scope.correlation_id
    return found


def operation_attributes(ended: OperationEnded) -> dict[str, Value]:
    """Those of a completion's or embeddings' span."""
    return {name: value for name, value in _operation(ended) if value is not None and value not in ("", ())}


def _operation(ended: OperationEnded) -> Iterator[tuple[str, Value | None]]:
    yield "gen_ai.operation.name", ended.operation.value
    yield "gen_ai.provider.name", "manent"
    yield "gen_ai.request.model", ended.model_asked[:MODEL_CHARS_MAX]
    yield "gen_ai.response.model", ended.model_id
    yield "gen_ai.response.id", ended.operation_id
    yield "gen_ai.conversation.id", ended.session_id
    yield "gen_ai.response.finish_reasons", tuple(ended.finish_reasons)
    yield "error.type", ended.error
    yield "manent.outcome", ended.outcome.value
    if (usage := ended.usage) is not None:
        yield "gen_ai.usage.input_tokens", usage.prompt_tokens
        yield "gen_ai.usage.output_tokens", usage.completion_tokens
        yield "gen_ai.usage.cache_read.input_tokens", usage.cached_tokens
        yield "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens
    if (parameters := ended.parameters) is not None:
        yield "gen_ai.request.temperature", parameters.temperature
        yield "gen_ai.request.top_p", parameters.top_p
        yield "gen_ai.request.max_tokens", parameters.max_tokens
        yield "gen_ai.request.seed", parameters.seed
        yield "gen_ai.request.choice.count", parameters.n
